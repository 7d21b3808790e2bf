"""The state of one pass: the only thing that changes while sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch

from .done import Done
from .parts.part import Part
from .schedule import Schedule, Span
from .sizes import FeatureSizes

Read = Callable[[torch.Tensor, Sequence[torch.Tensor]], "torch.Tensor | None"]
"""(what the UNet is called with [B, C, H, W], what it is shown beside it) -> a number for each row [B], if there is one
to tell; single precision holds it"""


class Reading:
    """Numbers that are read off each call of the UNet at the planned size.

    Attributes:
        values: Those of the current call's rows; None where there were none to tell.
    """

    def __init__(self, read: Read) -> None:
        self.read = read
        self.values: list[float] | None = None


class Run:
    """The state of one pass.

    Args:
        schedule: The noise levels of the pass.
        generator: A CPU generator for `WindowShift.RANDOM`; not used by `WindowShift.CYCLE`.
        done: What was done in the pass so far, if this is the rest of it.

    Attributes:
        timesteps: The noise of each row of the current UNet call, in the units of its `timesteps` argument; none before
            it.
        sizes: The feature sizes of the current call; None if it is not of the planned size and left alone.
        at_work: The parts that are at work in the UNet.
        is_base: Whether the current call is the base evaluation of noise-damped guidance.
        kept: What parts keep over the whole pass, by their names.
    """

    def __init__(self, schedule: Schedule, generator: torch.Generator | None = None, done: Done | None = None) -> None:
        self.schedule = schedule
        self.generator = generator
        self.done = done or Done()
        self.timesteps: list[float] = []
        self.sizes: FeatureSizes | None = None
        self.at_work: tuple[Part, ...] = ()
        self.is_base = False
        self.kept: dict[str, Any] = {}
        self._readings: list[Reading] = []

    @property
    def timestep(self) -> float:
        """The noise that the current UNet call goes by, its noisiest row's; infinite before it."""
        return max(self.timesteps, default=math.inf)

    def last_timesteps(self, count: int) -> list[float]:
        """The noise of the last rows, of which hosts have one for each picture; the call's, if it has less rows."""
        return self.timesteps[-count:] if len(self.timesteps) >= count else [self.timestep] * count

    @property
    def step(self) -> int:
        """The step of the pass that the current call belongs to, for what moves with the steps."""
        return self.schedule.step(self.timestep)

    def inside(self, span: Span) -> bool:
        """Whether the current call is one of the planned size in a span."""
        return self.sizes is not None and self.schedule.inside(span, self.timestep)

    def has(self, kind: type[Part]) -> bool:
        """Whether a part of a kind works in the current call."""
        return any(isinstance(part, kind) and any(map(self.inside, part.spans)) for part in self.at_work)

    def did(self, what: str) -> None:
        """Notes that something is done in the current call."""
        self.done.note(what, self.timestep)

    def reading(self, stack: ExitStack, read: Read) -> Reading:
        """What is read off each call until the stack closes, together with all else: reading waits for the device."""
        reading = Reading(read)
        self._readings.append(reading)
        stack.callback(self._readings.remove, reading)
        return reading

    def read(
        self, x: torch.Tensor, timesteps: torch.Tensor, shown: Sequence[torch.Tensor] = (), *, planned: bool
    ) -> None:
        """Reads all that has to be known of a call's numbers at once, as that waits until the device is done with what
        it has to do.

        Args:
            x: What the UNet is called with, [B, C, H, W].
            timesteps: Its noise, one number or [B].
            shown: What else it is called with: texts and the like.
            planned: Whether the call is of the planned size.
        """
        wanted = [timesteps.float().reshape(-1).expand(len(x))]
        told: list[Reading] = []
        for reading in self._readings:
            reading.values = None
            if planned and (found := reading.read(x, shown)) is not None:
                wanted.append(found)
                told.append(reading)
        read: list[list[float]] = cast(Any, torch.stack(wanted)).tolist()
        self.timesteps = read[0]
        for reading, values in zip(told, read[1:], strict=True):
            reading.values = values

    def mark(self) -> Callable[[], None]:
        """What puts the current call's state back, after others have called the UNet."""
        state = {"timesteps": self.timesteps, "sizes": self.sizes}
        return lambda: vars(self).update(state)

    @contextmanager
    def base_evaluation(self) -> Generator[None, None, None]:
        """While open, UNet calls are re-dilated as noise-damped guidance's base evaluation is."""
        self.is_base = True
        try:
            yield
        finally:
            self.is_base = False
