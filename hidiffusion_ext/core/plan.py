"""What one sampling pass gets: plain, frozen data. `planning` makes it, `apply` carries it out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .done import Done, Work
from .options import Preset, WindowShift
from .raunet import FeatureSizes, feature_sizes
from .redilation import Factor, factor_at
from .schedule import Schedule, Span
from .unet_map import Family, UNetMap
from .windows import Size

CELL = 8
"""Pixels per latent cell and side."""

NATIVE_AREA_LIMIT = 1.5
"""Pictures up to this multiple of the native area are native: 2:3 portraits such as 512x768 are made without help."""


def is_large(size: Size, native: int) -> bool:
    """Whether a picture is larger than its model was made for.

    Args:
        size: Its sides in pixels.
        native: Pixels per side that the model was made for.
    """
    return math.prod(size) > NATIVE_AREA_LIMIT * native**2


SETTLED = "the layout is settled where this pass begins"
"""Why a part that works on a picture's layout has nothing to do in a pass that begins with little noise."""


class Part(Enum):
    """What a plan is made of, in the words of `Plan.describe`."""

    RAU_NET = "RAU-Net"
    REDILATION = "re-dilation"
    DAMPED_GUIDANCE = "noise-damped guidance"
    MSW_MSA = "MSW-MSA"
    SPLIT_GUIDANCE = "split guidance"
    ANCHOR = "anchor"
    RELAY = "relay"


WHOLE = Span(0, 1)
"""A whole pass."""

LAYERS_NOT_CALLED = "the model's own layers were not called one by one"
LESS_NOISE = "the model was never called with the noise that it is for"
NOT_GUIDED = "nothing was guided while it would have worked"
NOT_MET = {
    Part.RAU_NET: LAYERS_NOT_CALLED,
    Part.REDILATION: LAYERS_NOT_CALLED,
    Part.RELAY: LAYERS_NOT_CALLED,
    Part.DAMPED_GUIDANCE: NOT_GUIDED,
    Part.MSW_MSA: "self-attention was never given the picture as it is",
    Part.SPLIT_GUIDANCE: NOT_GUIDED,
    Part.ANCHOR: NOT_GUIDED,
}
"""Why a part that was planned was never done, as far as its own hooks can tell."""


@dataclass(frozen=True)
class Task:
    """What the host knows about a pass and the UNet does not.

    Attributes:
        hires: The second pass of a hires-fix job.
        over_picture: The pass goes over a picture: a hires pass or img2img.
        v_prediction: The model predicts v (SD2.1 at 768).
        playground: A Playground model, which the official code spares the aggressive start.
        controlnet: A ControlNet guides the pass.
        conflicts: What has to be left out, and why, in a few words.
    """

    hires: bool = False
    over_picture: bool = False
    v_prediction: bool = False
    playground: bool = False
    controlnet: bool = False
    conflicts: Mapping[Part, str] = field(default_factory=dict[Part, str])


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
        windowed: Whether self-attentions get windows then.
    """

    latent: Size
    span: Span
    windowed: bool


@dataclass(frozen=True)
class Plan:
    """What one pass gets; plain data.

    Attributes:
        unet: The UNet's sites.
        latent: Latent (height, width) the plan is for; a UNet call at another size is left alone.
        native: Pixels per side the model was trained at.
        preset: The preset used; Auto for what lies between 2x and 4x.
        preset_t1, preset_t2: The preset's T1 (ScaleCrafter's tau) and T2; the user's own go before them.
        strided: When the strided pair is active.
        pooled: When the pooled pair is active.
        redilations: The convolutions that are re-dilated.
        damped: When guidance is noise-damped.
        stages: When the UNet is called at smaller sizes, smallest first.
        v_prediction: Whether the model predicts v; otherwise the noise.
        windows: The self-attentions that get windows, for the whole pass.
        window_shift: How the windows move.
        over_picture: Whether the pass goes over a picture.
        split_guidance: Guidance of small things over that of large ones.
        anchor: How strongly large shapes are held to those that the pass begins with.
        left_out: What was asked for and had to be left out, each with its reason.
        reason: Why nothing is active; empty if something is.
    """

    unet: UNetMap
    latent: Size
    native: int
    preset: Preset = Preset.X2
    preset_t1: float = 0.0
    preset_t2: float = 0.0
    strided: Span = Span()
    pooled: Span = Span()
    redilations: tuple[Redilation, ...] = ()
    damped: Span = Span()
    stages: tuple[Stage, ...] = ()
    v_prediction: bool = False
    windows: tuple[WindowSite, ...] = ()
    window_shift: WindowShift = WindowShift.CYCLE
    over_picture: bool = False
    split_guidance: float = 1.0
    anchor: float = 0.0
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
    def strided_at(self) -> int:
        """The input block with the strided downsampler: the first one of SD, the second one of SDXL."""
        return self.unet.downs[1 if self.unet.family is Family.SDXL else 0]

    @property
    def pooled_at(self) -> int:
        """The input block whose output is pooled: the first after the first downsampler."""
        return self.unet.downs[0] + 1

    def sizes(self, *, strided: bool = False, pooled: bool = False, stage: Stage | None = None) -> FeatureSizes:
        """The feature sizes inside a UNet call in which the given pairs are active, or in that stage of a relay."""
        latent = stage.latent if stage else self.latent
        return feature_sizes(
            self.unet, latent, self.strided_at if strided else None, self.pooled_at if pooled else None
        )

    def stage(self, schedule: Schedule, timestep: float) -> Stage | None:
        """The stage of a relay that a call of the UNet belongs to; None at full size."""
        return next((stage for stage in self.stages if schedule.inside(stage.span, timestep)), None)

    def window_size(self, site: WindowSite, sizes: FeatureSizes) -> Size:
        """The size of the feature map a self-attention sees."""
        return sizes.skips[self.unet.partner(site.block)] if site.output else sizes.inside[site.block]

    def _odd_windows(self, schedule: Schedule | None) -> bool:
        """Whether windows meet a side they can cut in two only after resizing it, in any phase of the pass."""
        due = [bool(schedule.steps_inside(span)) if schedule else span.end > 0 for span in (self.strided, self.pooled)]
        phases = itertools.product(*({False, is_due} for is_due in due))
        sizes = [self.sizes(strided=strided, pooled=pooled) for strided, pooled in phases]
        return any(side % 2 for at in sizes for site in self.windows for side in self.window_size(site, at))

    def due(self, schedule: Schedule) -> bool:
        """Whether anything is done in a pass with this schedule."""
        return bool(self.windows) or self.guides or any(schedule.steps_inside(span) for span in self._spans)

    @property
    def _spans(self) -> list[Span]:
        """When the parts that end are active."""
        parts = [*self.redilations, *self.stages]
        return [self.strided, self.pooled, self.damped, *(part.span for part in parts)]

    def describe(self, schedule: Schedule | None = None, *, about: bool = False, done: Done | None = None) -> str:
        """What is active, in words; after the pass, what was.

        Args:
            schedule: Of the pass; without it, ends are told as shares of the noise instead of in steps.
            about: The schedule is a guess, and the words say so.
            done: What was done in the pass, which has the schedule; nothing else is claimed then.
        """
        if not self.active:
            return self.reason
        of = f" of {schedule.steps}" if schedule else ""
        parts: list[str] = []
        left_out = list(self.left_out)

        def ends(*works: tuple[Work, Span]) -> list[str]:
            """When these are over, the earliest first; nothing for what is not done."""
            if schedule is None:
                shares = sorted({span.end for _, span in works if span.end > span.start})
                return [f"{end:.0%} of the noise" for end in shares]
            steps = sorted({_end(work, span, schedule, done) for work, span in works} - {0})
            return ["about " * about + f"step {step}" for step in steps]

        def not_done(part: Part, *spans: Span) -> None:
            if schedule and not any(schedule.steps_inside(span) for span in spans):
                left_out.append(f"{part.value} because {SETTLED}")
            elif schedule and done and not done.cut_short:
                came = any(schedule.inside(span, done.most_called) for span in spans)
                left_out.append(f"{part.value} because {NOT_MET[part] if came else LESS_NOISE}")

        def whole(part: Part, work: Work, words: str) -> None:
            """A part that works for the whole pass."""
            if done is None or schedule is None:
                parts.append(words)
            elif work in done.least:
                last = f" until step {schedule.begun(done.least[work])}{of}"
                parts.append(words + last * done.ended_before_the_pass(work))
            else:
                not_done(part, WHOLE)

        for stage in self.stages:
            if end := ends((Work.RELAY, stage.span)):
                width, height = stage.latent[1] * CELL, stage.latent[0] * CELL
                parts.append(f"{Part.RELAY.value} at " * (not parts) + f"{width}x{height} until {end[0]}")
        if parts:
            parts[-1] += of
        elif self.stages:
            not_done(Part.RELAY, *(stage.span for stage in self.stages))
        pairs = (Work.STRIDED, self.strided), (Work.POOLED, self.pooled)
        if end := ends(*pairs):
            stronger = f" (stronger until {end[0]})" if len(end) > 1 else ""
            parts.append(f"{Part.RAU_NET.value} until {end[-1]}{of}{stronger}")
        elif self.strided.end or self.pooled.end:
            not_done(Part.RAU_NET, self.strided, self.pooled)
        dilated = [site.span for site in self.redilations]
        if end := ends(*((Work.REDILATED, span) for span in dilated)):
            dispersed = " with dispersed convolution" if any(site.dispersed for site in self.redilations) else ""
            parts.append(f"{Part.REDILATION.value}{dispersed} until {end[-1]}{of}")
        elif dilated:
            not_done(Part.REDILATION, *dilated)
        if end := ends((Work.DAMPED, self.damped)):
            parts.append(f"{Part.DAMPED_GUIDANCE.value} until {end[-1]}{of}")
        elif schedule and schedule.steps_inside(self.damped):
            not_done(Part.DAMPED_GUIDANCE, self.damped)
        if self.windows:
            odd = self._odd_windows(schedule) if done is None else Work.ODD_WINDOWS in done.least
            whole(Part.MSW_MSA, Work.WINDOWS, Part.MSW_MSA.value + " on resized odd feature maps" * odd)
        if self.split_guidance != 1:
            whole(Part.SPLIT_GUIDANCE, Work.SPLIT_GUIDANCE, f"{Part.SPLIT_GUIDANCE.value} {self.split_guidance:g}")
        if self.anchor:
            whole(Part.ANCHOR, Work.ANCHOR, f"{Part.ANCHOR.value} {self.anchor:g}")
        if not parts and done is None:
            return f"nothing: {SETTLED}"
        return ", ".join([*parts, *(f"no {what}" for what in left_out)])


def _end(work: Work, span: Span, schedule: Schedule, done: Done | None) -> int:
    """The step after which a part is over; 0 if it is not in the pass, or was not done in it."""
    inside = schedule.steps_inside(span)
    if not inside or done is None:
        return inside[-1] + 1 if inside else 0
    if work not in done.least or not schedule.inside(Span(span.start, WHOLE.end), done.least[work]):
        return 0
    return min(inside[-1] + 1, schedule.begun(done.least[work]))
