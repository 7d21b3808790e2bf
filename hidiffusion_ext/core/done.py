"""What the hooks of a pass did: what is said after a pass comes from here, not from the plan."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from .schedule import Schedule

SOME = 1 / 4
"""The share of calls with the schedule's own noise from which on a sampler is one that keeps to it: those that make
most calls a step make one such in three; others meet it by chance."""


class Done:
    """What was done in one pass; filled in while it runs.

    Attributes:
        least: For what was done, in the words of the part that did it, the least noise at which it was, as the UNet's
            timestep.
        most: Likewise, the most noise at which it was.
        called: The noise of the UNet's calls at the planned size, in the same units.
        met: Whether any call so far was of the planned size; None before the first call.
        cut_short: Whether the pass was ended before its end, so that what is missing may have been to come.
        left_out: The names of what was left out in the rest of the pass, as it failed; why is told where it did.
        switched_off: Whether the rest of the pass was made without us.
    """

    def __init__(self) -> None:
        self.least: dict[str, float] = {}
        self.most: dict[str, float] = {}
        self.called = set[float]()
        self.met: bool | None = None
        self.left_out = set[str]()
        self.cut_short = self.switched_off = False

    def note(self, what: str, timestep: float) -> None:
        """Something was done in a call of the UNet."""
        self.least[what] = min(timestep, self.least.get(what, math.inf))
        self.most[what] = max(timestep, self.most.get(what, -math.inf))

    def note_call(self, timestep: float, *, planned: bool) -> None:
        """The UNet is called, at the planned size or at another."""
        self.met = self.met or planned
        if planned:
            self.called.add(timestep)

    def mark(self) -> Callable[[], None]:
        """What puts everything back to what it is now, as often as it is asked."""

        def copied(state: dict[str, Any]) -> dict[str, Any]:
            return {name: copy.copy(value) for name, value in state.items()}

        state = copied(vars(self))
        return lambda: vars(self).update(copied(state))

    def step(self, schedule: Schedule, timestep: float) -> int:
        """The step of the pass, from 1, in which the UNet was called with that noise.

        A sampler that adds noise of its own before each call (Euler Dy, SMEA Dy) hardly ever calls it with the
        schedule's, and calls it once a step at most. Those calls are counted from the end, if the pass came to it:
        the first ones can all have the most noise that the model knows. One that chooses its own steps (DPM adaptive)
        hardly ever meets the schedule's noise either, but calls more often: there the noise tells the step.
        """
        at_steps = sum(schedule.has(called) for called in self.called)
        if at_steps >= SOME * len(self.called) or len(self.called) > schedule.steps:
            return schedule.begun(timestep)
        if self.cut_short:
            return sum(called >= timestep for called in {*self.called, timestep})
        return schedule.steps - sum(called < timestep for called in self.called)

    def ended_before_the_pass(self, what: str) -> bool:
        """Whether calls were made without it after it was done for the last time."""
        return self.switched_off or self.least[what] > min(self.called, default=math.inf)
