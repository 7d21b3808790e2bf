"""Native first: a large picture as a native one, and a second pass over it, enlarged. The numbers of it.

The second pass begins with so much noise that the enlarged picture's large shapes stay and its details are drawn anew
(arXiv 2410.18410 and 2503.02537 begin their last one at a sigma of 1 to 1.15).
"""

from __future__ import annotations

from .sizes import CELL, resized

RESTART_NOISE = 0.54
"""The noise's share of the variance where the second pass begins: a sigma of 1.08."""

RESTART_STEPS = 0.3
"""The steps of the second pass for each step of the first: 15 for 50 (arXiv 2410.18410)."""

LEAST_STEPS = 6
"""Fewer steps in the second pass leave noise: with two DPM++ 2M's picture is full of it, with four it has grain."""


def first_size(width: int, height: int, native: int) -> tuple[int, int]:
    """The first pass's (width, height) for a picture of the given one: its aspect to within half a per cent, if that is
    possible, and most nearly the native area.

    All in pixels; the first pass's are multiples of 8.
    """
    down, across = resized((height, width), (native / CELL) ** 2, tolerance=0.005)
    return across * CELL, down * CELL


def second_steps(steps: int) -> int:
    """The second pass's steps where the first one's are given, which it never has more of."""
    return max(min(steps, LEAST_STEPS), round(RESTART_STEPS * steps))
