"""What one sampling pass gets: plain, frozen data. `planning` makes it, `apply` carries it out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from .evaluation import Change
from .options import Preset
from .parts.part import Inside, Need, Part
from .schedule import DISCRETE, NoiseLevels, Schedule, Span
from .sizes import CELL, FeatureSizes, Size, Sizing, feature_sizes
from .unet_map import UNetMap

NATIVE_AREA_LIMIT = 1.5
"""Pictures up to this multiple of the native area are native: 2:3 portraits such as 512x768 are made without help."""

if TYPE_CHECKING:
    from .run import Run

AnyPart = TypeVar("AnyPart", bound=Part)


def is_large(size: Size, native: int) -> bool:
    """Whether a picture is larger than its model was made for.

    Args:
        size: Its sides in pixels.
        native: Pixels per side that the model was made for.
    """
    return math.prod(size) > NATIVE_AREA_LIMIT * native**2


class Conflict(NamedTuple):
    """Something that parts need left alone, and is not.

    Attributes:
        reason: Why, in a few words.
        held: What is held.
    """

    reason: str
    held: frozenset[Need]


class LeftOut(NamedTuple):
    """A part that is not in a pass, by its name, and why, in a few words."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"no {self.name} because {self.reason}"


@dataclass(frozen=True)
class Situation:
    """What the host knows about a pass and the UNet does not.

    Attributes:
        hires: The second pass of a hires-fix job.
        over_picture: The pass goes over a picture: a hires pass or img2img.
        v_prediction: The model predicts v (SD2.1 at 768).
        playground: A Playground model, which the official code spares the aggressive start.
        controlnet: A ControlNet guides the pass.
        levels: The model's own noise schedule, of which spans are shares.
        unguided: The steps of the pass that the host leaves without guidance, from 0.
        conflicts: What others hold; of several reasons the first is told.
    """

    hires: bool = False
    over_picture: bool = False
    v_prediction: bool = False
    playground: bool = False
    controlnet: bool = False
    levels: NoiseLevels = DISCRETE
    unguided: frozenset[int] = frozenset()
    conflicts: tuple[Conflict, ...] = ()

    def against(self, part: Part) -> str:
        """Why a part has to be left out; empty if it has not."""
        return next((reason for reason, held in self.conflicts if held & part.needs), "")


@dataclass(frozen=True)
class Plan:
    """What one pass gets; plain data.

    Attributes:
        unet: The UNet's sites.
        latent: Latent (height, width) the plan is for; a UNet call at another size is left alone.
        native: Pixels per side the model was trained at.
        over_picture: Whether the pass goes over a picture.
        v_prediction: Whether the model predicts v; otherwise the noise.
        unguided: The steps without guidance, from 0.
        preset: The preset used; Auto for what lies between 2x and 4x.
        preset_t1, preset_t2: The preset's T1 (ScaleCrafter's tau) and T2, which the user's own override.
        parts: What is done, in the order it is told in.
        left_out: What was asked for and had to be left out.
        reason: Why nothing is active; empty if something is.
    """

    unet: UNetMap
    latent: Size
    native: int
    over_picture: bool = False
    v_prediction: bool = False
    unguided: frozenset[int] = frozenset()
    preset: Preset = Preset.X2
    preset_t1: float = 0.0
    preset_t2: float = 0.0
    parts: tuple[Part, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    reason: str = ""

    @property
    def active(self) -> bool:
        return not self.reason

    @property
    def enlargement(self) -> float:
        """How many times longer the picture's sides are than those of a native picture of its aspect."""
        return math.sqrt(math.prod(self.latent)) * CELL / self.native

    @property
    def names(self) -> list[str]:
        """What is in it."""
        return [name for part in self.parts for name in part.names]

    def part(self, kind: type[AnyPart]) -> AnyPart | None:
        """Its part of a kind, if it has one."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    def needing(self, need: Need) -> list[Part]:
        """The parts that need something left alone."""
        return [part for part in self.parts if need in part.needs]

    def with_parts(self, parts: Iterable[Part | None]) -> Plan:
        """The plan with other parts, without those that rest on what is not there."""
        there = [part for part in parts if part]
        names = {part.name for part in there}
        return dataclasses.replace(
            self, parts=tuple(part for part in there if not part.rests_on or part.rests_on in names)
        )

    def lesser(self, at_work: Sequence[Part]) -> Plan | None:
        """What to go on with when a call of the UNet fails with these parts at work, with less of one; None: nothing.

        Neighbours that stumble are most often those that expect every layer to be called, or something of feature maps'
        sizes.
        """
        changing = [part for need in (Need.LAYERS, Need.RESIZING) for part in self.needing(need) if part in at_work]
        if not changing:
            return None
        less = self.with_parts(part.lesser() if part is changing[0] else part for part in self.parts)
        return less if less.parts else None

    def needs_memory(self, inside: Inside) -> bool:
        """Whether a call of the UNet may need more memory with the plan than without."""
        return any(part.needs_memory(inside) for part in self.parts)

    def sizes(self, inside: Inside = lambda span: False) -> FeatureSizes:
        """The feature sizes in a call of the UNet; by default in one in which nothing is done."""
        own = sizing = Sizing(self.latent)
        for part in self.parts:
            sizing = part.resize(sizing, inside)
        return feature_sizes(self.unet, sizing, changed=sizing != own)

    def phases(self, schedule: Schedule | None) -> Iterator[Inside]:
        """The times of the pass at which different things may be done: its steps, or without them all there can be."""
        if schedule:
            for timestep in schedule.timesteps:
                yield lambda span, timestep=timestep: schedule.inside(span, timestep)
            return
        spans = {span for part in self.parts for span in part.spans}
        for share in {span.start for span in spans} | {span.end for span in spans} - {1.0}:
            yield lambda span, share=share: span.start <= share < span.end

    def guided(self, schedule: Schedule, span: Span) -> list[int]:
        """The steps of a span that are guided."""
        own = {step for part in self.unguided_by for step in schedule.steps_inside(part)}
        return [step for step in schedule.steps_inside(span) if step not in self.unguided | own]

    @property
    def unguided_by(self) -> list[Span]:
        """When its own parts leave the pass without guidance."""
        return [span for part in self.parts if (span := part.unguided())]

    def leaving_unguided(self, schedule: Schedule, timestep: float) -> list[Part]:
        """The parts that leave a call of the UNet without guidance."""
        return [part for part in self.parts if (span := part.unguided()) and schedule.inside(span, timestep)]

    def due(self, schedule: Schedule) -> bool:
        """Whether anything is done in a pass with this schedule."""
        return any(part.due(schedule) for part in self.parts)

    def changes(self, run: Run, begin: torch.Tensor) -> list[Change]:
        """What is changed in guidance, in order, as long as it is at work in the UNet.

        Args:
            run: The pass.
            begin: The latent [B, C, H, W] that it begins with, before noise is added.
        """

        def guarded(part: Part, change: Change) -> Change:
            return lambda evaluation: change(evaluation) if part in run.at_work else evaluation.guided

        due = (part for part in self.parts if part.due(run.schedule))
        return [guarded(part, change) for part in due if (change := part.change(self, run, begin))]
