"""What Blosc2 stores: contiguous frames, their chunks and blocks. The only importer of `blosc2`.

``layout`` and ``metadata`` parse frames, ``chunk`` parses chunks; ``inspect`` and ``pages`` make manifests,
``decode`` turns extents into elements, ``encode`` turns elements into answers.
"""
