"""Datasets for libraries that people read arrays with already: xarray, dask, fsspec, zarr, napari.

Each module imports its library, and is found by it through an entry point or imported by name. Nothing else
imports them.
"""
