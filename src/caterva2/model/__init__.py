"""The words of the system as types: paths, selections, chunk grids, manifests, the catalogue.

Pure: nothing here does I/O, knows HTTP or imports Blosc2.
"""
