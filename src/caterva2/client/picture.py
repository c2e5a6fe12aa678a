"""A drawing of the chunk grid of an array, as SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["draw_grid"]

LONGEST = 120.0
"""Length of the longest side, in pixels."""

SHORTEST = 12.0
"""Length of the shortest side, in pixels: very flat arrays are drawn less flat."""

MOST_LINES = 24
"""Finer grids are drawn coarser: so many lines along a side at most."""

SLANT = 0.45
"""How far the third dimension goes to the side and up, as a part of its length."""

EDGE, LINE, FRONT, SIDE = "#5b6770", "#9aa7b0", "#dbe9f4", "#c3d6e4"

Point = tuple[float, float]


def draw_grid(shape: Sequence[int], chunks: Sequence[int]) -> str:
    """Return a drawing of the last three dimensions of an array, cut into its chunks.

    Parameters
    ----------
    shape, chunks : sequence of int
        Elements of the array and of a chunk, along each dimension.

    Returns
    -------
    str
        An ``<svg>`` element; empty for arrays without dimensions or elements.
    """
    if not shape or not all(shape):
        return ""
    # the last dimension goes to the right, the one before down, the one before that into the picture
    lengths = _lengths(shape[-3:])
    cuts = [_cuts(*sides) for sides in zip(shape[-3:], chunks[-3:], lengths, strict=True)]
    width, right = lengths[-1], cuts[-1]
    height, down = (lengths[-2], cuts[-2]) if len(lengths) > 1 else (SHORTEST * 1.5, [])
    depth, back = (lengths[-3] * SLANT, [at * SLANT for at in cuts[-3]]) if len(lengths) > 2 else (0.0, [])
    faces = _faces(width, height, depth, right, down, back)
    size = f'width="{width + depth + 2:.0f}" height="{height + depth + 2:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{"".join(faces)}</svg>'


def _lengths(shape: Sequence[int]) -> list[float]:
    return [max(SHORTEST, LONGEST * (length / max(shape)) ** 0.5) for length in shape]


def _cuts(length: int, chunk: int, pixels: float) -> list[float]:
    """Return where a side is cut, in pixels."""
    count = -(-length // max(1, chunk)) - 1
    step = -(-count // MOST_LINES) or 1
    return [pixels * number * chunk / length for number in range(step, count + 1, step)]


def _faces(
    width: float, height: float, depth: float, right: list[float], down: list[float], back: list[float]
) -> Iterator[str]:
    x, y = 1.0, 1.0 + depth
    yield _face([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], FRONT)
    yield from (_line((x + at, y), (x + at, y + height)) for at in right)
    yield from (_line((x, y + at), (x + width, y + at)) for at in down)
    if not depth:
        return
    yield _face([(x, y), (x + depth, 1.0), (x + depth + width, 1.0), (x + width, y)], SIDE)
    yield from (_line((x + at, y), (x + at + depth, 1.0)) for at in right)
    yield from (_line((x + at, y - at), (x + at + width, y - at)) for at in back)
    x += width
    yield _face([(x, y), (x + depth, 1.0), (x + depth, 1.0 + height), (x, y + height)], SIDE)
    yield from (_line((x, y + at), (x + depth, 1.0 + at)) for at in down)
    yield from (_line((x + at, y - at), (x + at, y - at + height)) for at in back)


def _face(corners: list[Point], colour: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon points="{points}" fill="{colour}" stroke="{EDGE}"/>'


def _line(start: Point, stop: Point) -> str:
    (x1, y1), (x2, y2) = start, stop
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{LINE}"/>'
