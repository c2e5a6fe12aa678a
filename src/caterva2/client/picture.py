"""A drawing of the chunk grid of an array, as SVG that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["draw_grid", "draw_share"]

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
    lengths = _lengths(shape[-3:])
    cuts = [_cuts(*sides) for sides in zip(shape[-3:], chunks[-3:], lengths, strict=True)]
    # the last dimension goes to the right, the one before down, the one before that into the picture
    return "".join(_Box(lengths[::-1], cuts[::-1]).svg())


def draw_share(share: float) -> str:
    """Return a drawing of a part of something, from 0 to 1: an ``<svg>`` element, as wide as a grid is."""
    full = f'<rect width="{LONGEST:.0f}" height="8" fill="{FRONT}" stroke="{EDGE}"/>'
    part = f'<rect width="{LONGEST * share:.1f}" height="8" fill="{EDGE}"/>'
    size = f'width="{LONGEST:.0f}" height="8"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">{full}{part}</svg>'


def _lengths(shape: Sequence[int]) -> list[float]:
    return [max(SHORTEST, LONGEST * (length / max(shape)) ** 0.5) for length in shape]


def _cuts(length: int, chunk: int, pixels: float) -> list[float]:
    """Return where a side is cut, in pixels."""
    count = -(-length // max(1, chunk)) - 1
    step = -(-count // MOST_LINES) or 1
    return [pixels * number * chunk / length for number in range(step, count + 1, step)]


class _Box:
    """A box, or what there is of it with fewer than three dimensions.

    Parameters
    ----------
    lengths, cuts : list
        Of each dimension, the last one first: how long it is, and where it is cut, in pixels.
    """

    def __init__(self, lengths: list[float], cuts: list[list[float]]) -> None:
        self._width, self._right = lengths[0], cuts[0]
        self._height, self._down = (lengths[1], cuts[1]) if len(lengths) > 1 else (SHORTEST, [])
        self._depth, self._back = (0.0, [])
        if len(lengths) > 2:
            self._depth, self._back = lengths[2] * SLANT, [at * SLANT for at in cuts[2]]

    def svg(self) -> Iterator[str]:
        """Yield its picture."""
        width, height = self._width + self._depth + 2, self._height + self._depth + 2
        size = f'width="{width:.0f}" height="{height:.0f}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
        yield from self._front(1.0, 1.0 + self._depth)
        if self._depth:
            yield from self._top(1.0, 1.0 + self._depth)
            yield from self._side(1.0 + self._width, 1.0 + self._depth)
        yield "</svg>"

    def _front(self, x: float, y: float) -> Iterator[str]:
        width, height = self._width, self._height
        yield _face([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], FRONT)
        yield from (_line((x + at, y), (x + at, y + height)) for at in self._right)
        yield from (_line((x, y + at), (x + width, y + at)) for at in self._down)

    def _top(self, x: float, y: float) -> Iterator[str]:
        width, depth = self._width, self._depth
        yield _face([(x, y), (x + depth, y - depth), (x + depth + width, y - depth), (x + width, y)], SIDE)
        yield from (_line((x + at, y), (x + at + depth, y - depth)) for at in self._right)
        yield from (_line((x + at, y - at), (x + at + width, y - at)) for at in self._back)

    def _side(self, x: float, y: float) -> Iterator[str]:
        height, depth = self._height, self._depth
        yield _face([(x, y), (x + depth, y - depth), (x + depth, y - depth + height), (x, y + height)], SIDE)
        yield from (_line((x, y + at), (x + depth, y - depth + at)) for at in self._down)
        yield from (_line((x + at, y - at), (x + at, y - at + height)) for at in self._back)


def _face(corners: list[Point], colour: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return f'<polygon points="{points}" fill="{colour}" stroke="{EDGE}"/>'


def _line(start: Point, stop: Point) -> str:
    (x1, y1), (x2, y2) = start, stop
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{LINE}"/>'
