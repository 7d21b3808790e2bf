"""How far a sampling pass is, read from the timestep that reaches the UNet.

Counting UNet calls breaks with second-order, adaptive and restarting samplers and with split batches; percent of
training time breaks with img2img. The pass's own schedule is right for all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Schedule:
    """The noise levels one pass really runs, in the units of the UNet's own `timesteps` argument.

    Args:
        timesteps: One entry per step, first step first (falling), without the final zero noise level.

    Raises:
        ValueError: if there is no step.
    """

    def __init__(self, timesteps: Sequence[float]) -> None:
        if not timesteps:
            raise ValueError("a schedule needs at least one step")
        self.steps = len(timesteps)
        # Halfway between two entries: half-precision hosts round timesteps by up to 0.25, entries are 1 apart.
        self._rising = sorted(-(a + b) / 2 for a, b in zip(timesteps, timesteps[1:]))

    def step(self, timestep: float) -> int:
        """The step, 0 to `steps - 1`, whose noise level is nearest to the timestep."""
        return bisect_left(self._rising, -timestep)
