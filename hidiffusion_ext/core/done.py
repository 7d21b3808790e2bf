"""What the hooks of a pass did: what is said after a pass comes from here, not from the plan."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum, auto


class Work(Enum):
    """What can be done in a pass, as finely as it is told."""

    RELAY = auto()
    STRIDED = auto()
    POOLED = auto()
    REDILATED = auto()
    DAMPED = auto()
    WINDOWS = auto()
    ODD_WINDOWS = auto()
    SPLIT_GUIDANCE = auto()
    ANCHOR = auto()


class Done:
    """What was done in one pass; filled in while it runs.

    Attributes:
        least: For what was done, the least noise at which it was, as the UNet's timestep.
        least_called, most_called: The least and the most noise of the UNet's calls at the planned size.
        met: Whether any call so far was of the planned size; None before the first call.
        cut_short: Whether the pass was ended before its end, so that what is missing may have been to come.
        switched_off: Whether the rest of the pass was made without us.
    """

    def __init__(self) -> None:
        self.least: dict[Work, float] = {}
        self.least_called, self.most_called = math.inf, -math.inf
        self.met: bool | None = None
        self.cut_short = self.switched_off = False

    def note(self, work: Work, timestep: float) -> None:
        """Something was done in a call of the UNet."""
        self.least[work] = min(timestep, self.least.get(work, math.inf))

    def note_call(self, timestep: float, *, planned: bool) -> None:
        """The UNet is called, at the planned size or at another."""
        self.met = self.met or planned
        if planned:
            self.least_called, self.most_called = min(self.least_called, timestep), max(self.most_called, timestep)

    def mark(self) -> Callable[[], None]:
        """What puts everything back to what it is now."""
        state = {**vars(self), "least": dict(self.least)}
        return lambda: vars(self).update(state)

    def ended_before_the_pass(self, work: Work) -> bool:
        """Whether calls were made without it after it was done for the last time."""
        return self.switched_off or self.least[work] > self.least_called
