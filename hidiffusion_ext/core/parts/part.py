"""What a part of a pass is: one thing that is done in it, which answers all that the pass has to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from ..evaluation import Change
from ..schedule import Schedule, Span
from ..sizes import FeatureSizes, Sizing

if TYPE_CHECKING:
    from ..plan import Plan
    from ..run import Run
    from ..words import Telling

WHOLE = Span(0, 1)
"""A whole pass."""

NOT_GUIDED = "nothing is guided while it would work"
LAYERS_NOT_CALLED = "the model's own layers were not called one by one"

Inside = Callable[[Span], bool]
"""Whether a call of the UNet, or a step, is in a span."""


class Need(Enum):
    """What a part needs others to leave alone. Somebody else who holds it keeps the part out of a pass."""

    LAYERS = auto()
    """Nobody needs every layer to be called in every call, and nobody has put a forward of their own on one."""

    INTERVAL = auto()
    """Nobody else says which steps are guided, or changes what guidance results in."""

    INPUT = auto()
    """Nobody relies on the size of what the UNet is called with."""

    FEATURES = auto()
    """Nobody relies on the sizes of feature maps."""

    RESIZING = auto()
    """Nobody else changes the sizes of feature maps."""

    DOWNSAMPLERS = auto()
    """Nobody relies on the strides of downsamplers."""

    CONVOLUTIONS = auto()
    """Nobody keeps to a padding or dilation of their own."""

    TOKENS = auto()
    """Nobody relies on which tokens self-attention is given."""

    PREDICTION = auto()
    """The UNet predicts the noise or v."""

    GUIDANCE = auto()
    """There is guidance, from rows with and without the prompt."""

    CLEAN = auto()
    """The sampler is handed clean estimates."""

    UNCONDITIONAL = auto()
    """The sampler does not go on from the unconditional rows."""


@dataclass(frozen=True)
class Part:
    """One thing that is done in a pass; plain data, and what follows from it.

    Attributes:
        name: In the words that it is told in.
        needs: What it needs others to leave alone.
        rests_on: The name of the part that it is nothing without, if there is one.
        not_met: Why it was never done although its time came, as far as its own hooks can tell.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
    rests_on: ClassVar[str] = ""
    not_met: ClassVar[str]

    @property
    def names(self) -> tuple[str, ...]:
        """What it is told as: its name, and those of what it can be left without."""
        return (self.name,)

    @property
    def spans(self) -> tuple[Span, ...]:
        """When it works."""
        return (WHOLE,)

    def due(self, schedule: Schedule) -> bool:
        """Whether it works in any step of a pass."""
        return any(schedule.steps_inside(span) for span in self.spans)

    def lesser(self) -> Part | None:
        """What to go on with in its place when a call of the UNet fails with it; None: without it."""
        return None

    def needs_memory(self, inside: Inside) -> bool:
        """Whether a call of the UNet may need more memory with it than without."""
        return False

    def resize(self, sizing: Sizing, inside: Inside) -> Sizing:
        """What gives feature maps their sizes with it, from what does without it."""
        return sizing

    def factors(self, schedule: Schedule, step: int, sizes: FeatureSizes, *, base: bool) -> Mapping[str, float]:
        """How many times its own multiplications a site takes in a step, by the name of its module.

        Args:
            schedule: Of the pass.
            step: From 0.
            sizes: Those of the step.
            base: In the evaluation that `evaluates_again` is about.
        """
        return {}

    def evaluates_again(self, plan: Plan, schedule: Schedule, step: int) -> bool:
        """Whether the unconditional rows are evaluated once more in a step, as a base of guidance."""
        return False

    def unguided(self) -> Span | None:
        """When the unconditional rows are not evaluated because of it."""
        return None

    def put_in_place(self, stack: ExitStack, unet: nn.Module, plan: Plan, run: Run) -> None:
        """Registers its hooks until the stack closes.

        Args:
            stack: What takes them away.
            unet: The UNet.
            plan, run: Of the pass.

        Raises:
            ValueError: if the run lacks what it needs.
        """

    def change(self, plan: Plan, run: Run, begin: torch.Tensor) -> Change | None:
        """What it changes in guidance; None: nothing.

        Args:
            plan, run: Of the pass.
            begin: The latent [B, C, H, W] that the pass begins with, before noise is added.
        """
        return None

    def told(self, telling: Telling) -> str | None:
        """What is said of it: planned, or done; empty if it is not, and None if nothing is to be said."""
        raise NotImplementedError
