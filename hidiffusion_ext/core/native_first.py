"""Native first: a large picture as a native one, and a second pass over it, enlarged. The numbers of it.

The second pass begins with so much noise that the enlarged picture's large shapes stay and its details are drawn anew
(arXiv 2410.18410 and 2503.02537 begin their last one at a sigma of 1 to 1.15).
"""

from __future__ import annotations

import math

from .options import Method
from .plan import is_large
from .schedule import Schedule
from .sizes import CELL, resized

MAKE_TWO = {Method.AUTO, Method.NATIVE_FIRST}
"""The methods that make two passes of a job's one."""

FAR_SIDES = 3
"""From this multiple of the native side on, along both sides, two passes draw a picture better: on the demo model those
of one pass are less true there than enlarged native ones, a second pass's truer (docs/quality.md)."""

RESTART_NOISE = 0.54
RESTART_SIGMA = (RESTART_NOISE / (1 - RESTART_NOISE)) ** 0.5
"""The noise where the second pass begins: its share of the variance, and its standard deviation over the signal's,
1.08."""

RESTART_STEPS = 0.3
"""The steps of the second pass for each step of the first: 15 for 50 (arXiv 2410.18410)."""

LEAST_STEPS = 6
"""Fewer steps in the second pass leave noise: with two DPM++ 2M's picture is full of it, with four it has grain. So do
fewer in a whole pass, which has less than half of its steps at that noise: in place of it half of them are enough."""

BETWEEN_PASSES = 2.0
"""What decoding, enlarging and encoding between the passes takes, in evaluations of the second pass's UNet: by their
multiplications 1.8 with SD1.5 at 1024x1024, 1.1 with SDXL at 2048x2048."""


def is_far(width: int, height: int, native: int) -> bool:
    """Whether a picture (pixels) is so large that two passes draw it better."""
    return min(width, height) >= FAR_SIDES * native


def makes_two(method: Method, width: int, height: int, native: int) -> bool:
    """Whether a method makes two passes of a job's one for a picture of this size (pixels)."""
    if method is Method.AUTO:
        return is_far(width, height, native)
    return method is Method.NATIVE_FIRST and is_large((width, height), native)


def first_size(width: int, height: int, native: int) -> tuple[int, int]:
    """The first pass's (width, height) for a picture of the given one: its aspect to within half a per cent, if that is
    possible, and most nearly the native area.

    All in pixels; the first pass's are multiples of 8.
    """
    down, across = resized((height, width), (native / CELL) ** 2, tolerance=0.005)
    return across * CELL, down * CELL


def steps_needed(schedule: Schedule, restart: float, enlargement: float) -> int:
    """How many of the first pass's steps count: those with at least the noise that the second pass puts back.

    In cells `enlargement` times as long that is a sigma as many times smaller, as noise averages out. What comes after
    is drawn anew, so the last of these steps goes to its clean estimate (as arXiv 2503.02537 does).

    Args:
        schedule: The first pass's.
        restart: The sigma that the second pass begins with; more than the method's own counts as that.
        enlargement: How many times longer the second pass's sides are.
    """
    least = min(restart, RESTART_SIGMA) / enlargement
    needed = sum(schedule.levels.sigma(timestep) >= least for timestep in schedule.timesteps)
    return min(schedule.steps, max(needed, LEAST_STEPS))


def second_steps(steps: int) -> int:
    """The second pass's steps where the first one's are given, which it never has more of."""
    return max(min(steps, LEAST_STEPS), round(RESTART_STEPS * steps))


def steps_in_time(steps: int, first: float, second: float, evaluations: int) -> range:
    """How many steps the second pass can have: those of `second_steps`, or one more, which may begin nearer to the
    noise it is to begin with; as far as the job takes no longer than its picture in one pass, without any method.

    Args:
        steps: The first pass's, and those of the picture in one pass.
        first, second: What a step of either pass takes, as a share of what one of that picture takes.
        evaluations: How many the UNet makes a step: 2 with guidance, 1 without.

    Returns:
        The numbers; none if there is no time for as many steps as are needed.
    """
    usual = second_steps(steps)
    most = math.floor((steps * (1 - first) - BETWEEN_PASSES / evaluations) / second)
    if most < min(usual, math.ceil(steps / 2)):
        return range(0)
    return range(min(usual, most), min(usual + 1, most) + 1)
