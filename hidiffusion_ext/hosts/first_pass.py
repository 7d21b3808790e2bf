"""The first pass of a job with hires fix, without the steps whose work the second pass makes anew."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from modules import shared

from ..core import Options, Passes, Schedule
from ..core.native_first import steps_needed
from ..core.options import FasterSecondPass
from ..core.plan import is_large
from ..core.sizes import CELL
from .asking import Asking
from .passes import native_side
from .schedules import hires_latent, hires_steps, in_hires_pass

SAVED = "save_images_before_highres_fix"
"""The host's setting by which first passes' pictures are saved, too."""

NO_REFINER = (None, "", "None", "none")
"""What hosts have in the place of a refiner's name."""


def is_shortened(p: Any, options: Options) -> bool:
    """Whether a job's first pass need not make all its steps: hires fix to a large picture goes over it, its own one is
    not saved, and no refiner takes over at one of them.

    Args:
        p: The job; the host has worked out its sizes.
        options: What the user asked for.

    Raises:
        Refused: if this model cannot be patched, or not as asked.
    """
    if not getattr(p, "enable_hr", False) or getattr(p, "refiner_checkpoint", None) not in NO_REFINER:
        return False
    if getattr(shared.opts, SAVED, False):
        return False
    if options.passes is Passes.FIRST or not options.faster_second_pass.has(FasterSecondPass.SHORT):
        return False
    height, width = hires_latent(p)
    return is_large((width * CELL, height * CELL), native_side(p, options))


def needed_steps(p: Any) -> Callable[[Schedule], int]:
    """What says how many steps of its schedule a job's first pass needs, once the host has worked out the sizes; all,
    if the host cannot say which noise the second pass begins with.
    """

    def needed(schedule: Schedule) -> int:
        try:
            second = in_hires_pass(p)
            restart = Asking(second)(*hires_steps(second)).schedule
        except Exception:  # whatever a host, a model or another extension's sampler may raise
            return schedule.steps
        return steps_needed(schedule, restart.levels.sigma(restart.timesteps[0]), enlargement(p))

    return needed


def enlargement(p: Any) -> float:
    """How many times longer the sides of a job's second pass are than those of its first."""
    return math.sqrt(math.prod(hires_latent(p)) / math.prod((p.height // CELL, p.width // CELL)))
