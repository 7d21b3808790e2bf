"""What one sampling pass gets: plain, frozen data. `planning` makes it, `apply` carries it out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .options import Preset, WindowShift
from .redilation import Factor, factor_at
from .schedule import DISCRETE, NoiseLevels, Schedule, Span
from .sizes import CELL, FeatureSizes, Size, feature_sizes
from .unet_map import UNetMap

NATIVE_AREA_LIMIT = 1.5
"""Pictures up to this multiple of the native area are native: 2:3 portraits such as 512x768 are made without help."""


def is_large(size: Size, native: int) -> bool:
    """Whether a picture is larger than its model was made for.

    Args:
        size: Its sides in pixels.
        native: Pixels per side that the model was made for.
    """
    return math.prod(size) > NATIVE_AREA_LIMIT * native**2


class Technique(Enum):
    """What can be done in a pass, in the words that it is told in. A method has several."""

    RAU_NET = "RAU-Net"
    REDILATION = "re-dilation"
    DAMPED_GUIDANCE = "noise-damped guidance"
    MSW_MSA = "MSW-MSA"
    SPLIT_GUIDANCE = "split guidance"
    ANCHOR = "anchor"
    RELAY = "relay"
    DISPERSION = "dispersed convolution"


GUIDANCE = {Technique.DAMPED_GUIDANCE, Technique.SPLIT_GUIDANCE, Technique.ANCHOR}
"""What works on guidance."""

FEATURES = (Technique.RAU_NET, Technique.REDILATION, Technique.RELAY)
"""What a method changes feature maps by."""


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
        conflicts: What has to be left out, and why, in a few words.
    """

    hires: bool = False
    over_picture: bool = False
    v_prediction: bool = False
    playground: bool = False
    controlnet: bool = False
    levels: NoiseLevels = DISCRETE
    unguided: frozenset[int] = frozenset()
    conflicts: Mapping[Technique, str] = field(default_factory=dict[Technique, str])


@dataclass(frozen=True)
class Pair:
    """A reduction of the feature maps and what undoes it (RAU-Net).

    Attributes:
        block: The index of the input block that reduces them.
        span: When.
    """

    block: int = 0
    span: Span = Span()


@dataclass(frozen=True)
class WindowSite:
    """A self-attention that gets windows.

    Attributes:
        attention: The name of the module (attn1).
        block: The index of its block.
        output: Whether that is an output block; otherwise an input block.
    """

    attention: str
    block: int
    output: bool


@dataclass(frozen=True)
class Redilation:
    """A convolution that looks further around itself (ScaleCrafter).

    Attributes:
        conv: The name of the module.
        factor: How much further (down, across); 1 leaves that axis alone.
        span: When.
        progressive: Whether the factor shrinks towards 2 over the span.
        dispersed: Whether half of the factor is made by spreading the kernel.
        base: The factor in the evaluation that noise-damped guidance adds; 1 leaves that axis alone.
    """

    conv: str
    factor: tuple[float, float]
    span: Span
    progressive: bool
    dispersed: bool = False
    base: tuple[float, float] = (1.0, 1.0)

    def factor_at(self, step: int, schedule: Schedule, *, base: bool) -> Factor | None:
        """How much further the convolution looks at a step of the span; None: as always.

        A progressive factor goes by steps, as the paper's does, so that it is its at every one; a pass that begins late
        goes on where a whole one would be.
        """
        full = self.base if base else self.factor
        if full == (1.0, 1.0):
            return None
        begun, steps = schedule.left_out, len(schedule.steps_inside(self.span))
        down, across = factor_at(full, begun + step, begun + steps, progressive=self.progressive)
        return (down / 2, across / 2) if self.dispersed else (down, across)


@dataclass(frozen=True)
class Stage:
    """A part of a pass in which the UNet is called at a smaller size (relay).

    Attributes:
        latent: That size, (height, width) in latent cells.
        span: When.
        native: Whether that is the native size, where a pass begins and self-attentions need no windows.
    """

    latent: Size
    span: Span
    native: bool


@dataclass(frozen=True)
class Plan:
    """What one pass gets; plain data.

    Attributes:
        unet: The UNet's sites.
        latent: Latent (height, width) the plan is for; a UNet call at another size is left alone.
        native: Pixels per side the model was trained at.
        preset: The preset used; Auto for what lies between 2x and 4x.
        preset_t1, preset_t2: The preset's T1 (ScaleCrafter's tau) and T2; the user's own go before them.
        strided: The pair whose downsampler works with stride 4.
        pooled: The pair whose block has its output pooled.
        redilations: The convolutions that are re-dilated.
        damped: When guidance is noise-damped.
        stages: When the UNet is called at smaller sizes, smallest first.
        v_prediction: Whether the model predicts v; otherwise the noise.
        windows: The self-attentions that get windows, for the whole pass.
        window_shift: How the windows move.
        over_picture: Whether the pass goes over a picture.
        split_guidance: Guidance of small things over that of large ones.
        anchor: How strongly large shapes are held to those that the pass begins with.
        unguided: The steps without guidance, from 0.
        left_out: What was asked for and had to be left out, each with its reason.
        reason: Why nothing is active; empty if something is.
    """

    unet: UNetMap
    latent: Size
    native: int
    preset: Preset = Preset.X2
    preset_t1: float = 0.0
    preset_t2: float = 0.0
    strided: Pair = Pair()
    pooled: Pair = Pair()
    redilations: tuple[Redilation, ...] = ()
    damped: Span = Span()
    stages: tuple[Stage, ...] = ()
    v_prediction: bool = False
    windows: tuple[WindowSite, ...] = ()
    window_shift: WindowShift = WindowShift.CYCLE
    over_picture: bool = False
    split_guidance: float = 1.0
    anchor: float = 0.0
    unguided: frozenset[int] = frozenset()
    left_out: tuple[str, ...] = ()
    reason: str = ""

    @property
    def active(self) -> bool:
        return not self.reason

    @property
    def enlargement(self) -> float:
        """How many times longer the picture's sides are than those of a native picture of its aspect."""
        return math.sqrt(math.prod(self.latent)) * CELL / self.native

    @property
    def guides(self) -> bool:
        """Whether guidance is changed for the whole pass."""
        return self.split_guidance != 1 or self.anchor > 0

    @property
    def techniques(self) -> set[Technique]:
        """What is in it."""
        there = {
            Technique.RAU_NET: self.strided.span.end or self.pooled.span.end,
            Technique.REDILATION: self.redilations,
            Technique.DISPERSION: any(site.dispersed for site in self.redilations),
            Technique.DAMPED_GUIDANCE: self.damped.end,
            Technique.RELAY: self.stages,
            Technique.MSW_MSA: self.windows,
            Technique.SPLIT_GUIDANCE: self.split_guidance != 1,
            Technique.ANCHOR: self.anchor,
        }
        return {technique for technique, is_there in there.items() if is_there}

    def without(self, technique: Technique) -> Plan:
        """The plan without dispersed convolution, or without all that a method changes feature maps by."""
        if technique is Technique.DISPERSION:
            redilations = tuple(dataclasses.replace(site, dispersed=False) for site in self.redilations)
            return dataclasses.replace(self, redilations=redilations)
        return dataclasses.replace(self, strided=Pair(), pooled=Pair(), redilations=(), damped=Span(), stages=())

    def lesser(self) -> list[Plan]:
        """What to go on with when a call of the UNet fails with the plan, and with the first of them, and so on.

        Neighbours that stumble are most often those that expect something of feature maps' sizes.
        """
        plans: list[Plan] = [self]
        for technique in (Technique.DISPERSION, *FEATURES):
            if technique in plans[-1].techniques:
                plans.append(plans[-1].without(technique))
        return [plan for plan in plans[1:] if plan.techniques]

    def needs_memory(self, schedule: Schedule, timestep: float) -> bool:
        """Whether a call of the UNet may need more memory with the plan than without: for enlarged inputs and spread
        kernels, or at full size for what a relay keeps.
        """
        redilated = any(schedule.inside(site.span, timestep) for site in self.redilations)
        return redilated or (bool(self.stages) and self.stage(schedule, timestep) is None)

    def sizes(self, *, strided: bool = False, pooled: bool = False, stage: Stage | None = None) -> FeatureSizes:
        """The feature sizes inside a UNet call in which the given pairs are active, or in that stage of a relay."""
        latent = stage.latent if stage else self.latent
        return feature_sizes(
            self.unet, latent, self.strided.block if strided else None, self.pooled.block if pooled else None
        )

    def stage(self, schedule: Schedule, timestep: float) -> Stage | None:
        """The stage of a relay that a call of the UNet belongs to; None at full size."""
        return next((stage for stage in self.stages if schedule.inside(stage.span, timestep)), None)

    def window_size(self, site: WindowSite, sizes: FeatureSizes) -> Size:
        """The size of the feature map a self-attention sees."""
        return sizes.skips[self.unet.partner(site.block)] if site.output else sizes.inside[site.block]

    def guided(self, schedule: Schedule, span: Span) -> list[int]:
        """The steps of a span that are guided."""
        return [step for step in schedule.steps_inside(span) if step not in self.unguided]

    def due(self, schedule: Schedule) -> bool:
        """Whether anything is done in a pass with this schedule."""
        return bool(self.windows) or self.guides or any(schedule.steps_inside(span) for span in self._spans)

    @property
    def _spans(self) -> list[Span]:
        """When what does not work for the whole pass does."""
        ending = [self.strided, self.pooled, *self.redilations, *self.stages]
        return [self.damped, *(one.span for one in ending)]
