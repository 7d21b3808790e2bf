"""How much noise is left: in a call of the UNet, at the end of a span, over the steps of a pass.

What a picture shows is settled by the noise that is left, not by how many steps were made: the first 40 % of the steps
end at very different noise with Karras', exponential or Beta spacing, and a pass that begins late (img2img, hires)
begins where much is settled. So a span is a share of the model's own noise schedule, its training timesteps, noisiest
first, and is compared with the timestep that reaches the UNet, in the UNet's own units. With the schedule of the
official code (evenly spaced, 1000 / N apart, the last at 1) that gives exactly its steps `int(N * share)`.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """From the noise that is left after the share `start` of the model's noise schedule to that after `end` of it."""

    start: float = 0.0
    end: float = 0.0


class NoiseLevels:
    """A model's own noise schedule.

    Args:
        timesteps: The UNet's `timesteps` argument for each noise level of the training, least noise first (rising).
        sigmas: The noise's standard deviation over the signal's at each of them.

    Raises:
        ValueError: if there are less than two levels.
    """

    def __init__(self, timesteps: Sequence[float], sigmas: Sequence[float]) -> None:
        if len(timesteps) < 2:
            raise ValueError("a noise schedule needs at least two levels")
        self._timesteps, self._sigmas = timesteps, sigmas

    def after(self, share: float) -> float:
        """The timestep at which the noisiest `share` (0 to 1) is over, on straight lines between the levels."""
        if share <= 0:
            return math.inf
        if share >= 1:
            return -math.inf
        position = min((1 - share) * len(self._timesteps), len(self._timesteps) - 1)
        low = min(int(position), len(self._timesteps) - 2)
        return self._timesteps[low] + (position - low) * (self._timesteps[low + 1] - self._timesteps[low])

    def left(self, timestep: float) -> float:
        """The share of the schedule, 0 to 1, that is left at a timestep: what `after` is told, from the other end."""
        return self._position(timestep) / len(self._timesteps)

    def noise(self, timestep: float) -> float:
        """The noise's share of the variance at a timestep, 0 to 1, on straight lines between the levels."""
        low = min(int(self._position(timestep)), len(self._timesteps) - 2)
        part = self._position(timestep) - low
        shares = [sigma**2 / (1 + sigma**2) for sigma in self._sigmas[low : low + 2]]
        return shares[0] + part * (shares[1] - shares[0])

    def sigma(self, timestep: float) -> float:
        """The noise's standard deviation over the signal's at a timestep."""
        noise = self.noise(timestep)
        return (noise / (1 - noise)) ** 0.5

    def at_sigma(self, sigma: float) -> float:
        """The timestep of a sigma, what `sigma` is told, within the model's own."""
        above = min(max(bisect_left(self._sigmas, sigma), 1), len(self._sigmas) - 1)
        wanted, low, high = (s**2 / (1 + s**2) for s in (sigma, self._sigmas[above - 1], self._sigmas[above]))
        part = min(max((wanted - low) / (high - low), 0.0), 1.0)
        return self._timesteps[above - 1] + part * (self._timesteps[above] - self._timesteps[above - 1])

    def _position(self, timestep: float) -> float:
        """Where among the levels a timestep is, 0 to their number less one."""
        above = min(max(bisect_left(self._timesteps, timestep), 1), len(self._timesteps) - 1)
        low, high = self._timesteps[above - 1], self._timesteps[above]
        return min(max(above - 1 + (timestep - low) / (high - low), 0.0), len(self._timesteps) - 1.0)

    @property
    def tolerance(self) -> float:
        """Half the mean distance of two levels: hosts round timesteps by as much (half precision, whole numbers)."""
        return (self._timesteps[-1] - self._timesteps[0]) / (len(self._timesteps) - 1) / 2

    @property
    def most(self) -> float:
        """The timestep of the noisiest level."""
        return self._timesteps[-1]


def below(sigma: float, levels: NoiseLevels) -> Span:
    """The end of a pass, from a sigma on."""
    return Span(1 - levels.left(levels.at_sigma(sigma)), 1)


def _stable_diffusion_sigmas() -> list[float]:
    """Betas whose roots rise evenly from 0.00085 ** 0.5 to 0.012 ** 0.5 (the models' own configuration)."""
    first, last = 0.00085**0.5, 0.012**0.5
    alphas = itertools.accumulate((1 - (first + (last - first) * t / 999) ** 2 for t in range(1000)), operator.mul)
    return [((1 - alpha) / alpha) ** 0.5 for alpha in alphas]


DISCRETE = NoiseLevels(range(1000), _stable_diffusion_sigmas())
"""Models whose UNet is given the number of the training timestep: Stable Diffusion's."""


class Schedule:
    """The noise levels one pass really runs.

    Args:
        timesteps: One entry per step, first step first (falling), without the final zero noise level, in the units of
            the UNet's own `timesteps` argument.
        levels: The model's own noise schedule in the same units.

    Raises:
        ValueError: if there is no step.
    """

    def __init__(self, timesteps: Sequence[float], levels: NoiseLevels = DISCRETE) -> None:
        if not timesteps:
            raise ValueError("a schedule needs at least one step")
        self.timesteps = tuple(timesteps)
        self.levels = levels
        self._limits: dict[float, float] = {}
        self._inside: dict[Span, range] = {}
        self._rising = sorted(-(a + b) / 2 for a, b in zip(timesteps, timesteps[1:]))

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def left_out(self) -> int:
        """How many steps a whole pass, as evenly spaced, would have made before this one begins."""
        if self.timesteps[0] == self.timesteps[-1]:  # one step, or all at one noise
            return 0
        distance = (self.timesteps[0] - self.timesteps[-1]) / (self.steps - 1)
        return int((self.levels.most - self.timesteps[0] + self.levels.tolerance) / distance)

    def first(self, steps: int) -> Schedule:
        """The first steps of it."""
        return Schedule(self.timesteps[:steps], self.levels)

    def step(self, timestep: float) -> int:
        """The step, 0 to `steps - 1`, whose noise level is nearest to the timestep: for what moves with the steps."""
        return bisect_left(self._rising, -timestep)

    def has(self, timestep: float) -> bool:
        """Whether a timestep is that of a step."""
        return abs(self.timesteps[self.step(timestep)] - timestep) <= self.levels.tolerance

    def begun(self, timestep: float) -> int:
        """How many steps have begun when the UNet is called with the timestep, the current one included."""
        return max(1, sum(entry >= timestep - self.levels.tolerance for entry in self.timesteps))

    def inside(self, span: Span, timestep: float) -> bool:
        """Whether a call of the UNet at that timestep is in the span."""
        return self._limit(span.end) < timestep <= self._limit(span.start)

    def begins(self, span: Span) -> float:
        """The timestep from which on a span lasts, clear of those of the pass."""
        return self._limit(span.start)

    def steps_inside(self, span: Span) -> range:
        """The steps of the pass that are in the span."""
        if span not in self._inside:
            found = [step for step, timestep in enumerate(self.timesteps) if self.inside(span, timestep)]
            self._inside[span] = range(found[0], found[-1] + 1) if found else range(0)
        return self._inside[span]

    def _limit(self, share: float) -> float:
        """The timestep at which a share is over."""
        if share not in self._limits:
            self._limits[share] = self._clear_of_steps(self.levels.after(share))
        return self._limits[share]

    def _clear_of_steps(self, limit: float) -> float:
        """The limit, moved away from the pass's own timesteps by what hosts round them by."""
        above = min((t for t in self.timesteps if t > limit), default=math.inf)
        below = max((t for t in self.timesteps if t <= limit), default=-math.inf)
        if above - below <= 2 * self.levels.tolerance:
            return (above + below) / 2
        return min(max(limit, below + self.levels.tolerance), above - self.levels.tolerance)
