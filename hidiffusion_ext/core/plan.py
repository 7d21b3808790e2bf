"""Decides, before anything is touched, what one sampling pass gets. The only place with preset tables."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .options import Options, Passes, Preset, WindowShift
from .raunet import FeatureSizes, feature_sizes
from .unet_map import Family, UNetMap
from .windows import Size

CELL = 8
"""Pixels per latent cell and side."""

NATIVE_SIDE = {Family.SD1: 512, Family.SD2: 512, Family.SDXL: 1024}
"""Pixels per side a family was trained at."""

NATIVE_SIDE_SD2_V = 768
NATIVE_SIDE_TURBO = 512

NATIVE_AREA_LIMIT = 1.5
"""Pictures up to this multiple of the native area are native: 2:3 portraits such as 512x768 are made without help."""

X4_SIDES = 4
"""Both sides at least this multiple of the native one: the 4x preset (official code: 2048 for SD1.5, 4096 for SDXL)."""

AGGRESSIVE_SHARE = 8 / 50
"""SDXL below 4x starts with the strided pair for this share of the steps (official code, "aggressive RAU-Net")."""

PRESETS = {
    (Preset.X2, False): (0.4, 0.0),
    (Preset.X4, False): (0.7, 0.3),
    (Preset.X2, True): (0.4, 0.0),
    (Preset.X4, True): (0.7, 0.3),
    (Preset.TURBO, True): (0.5, 0.0),
}
"""(preset, is SDXL) -> (T1, T2) of the official code, as shares of the pass's steps."""


@dataclass(frozen=True)
class Span:
    """Steps `int(start * N)` up to but not including `int(end * N)` of a pass of N steps."""

    start: float = 0.0
    end: float = 0.0

    def steps(self, total: int) -> range:
        """The steps of a pass of `total` steps that lie in the span; rounded as the official code rounds."""
        return range(int(total * self.start), int(total * self.end))


@dataclass(frozen=True)
class Task:
    """What the host knows about a pass and the UNet does not.

    Attributes:
        hires: The second pass of a hires-fix job.
        v_prediction: The model predicts v (SD2.1 at 768).
        playground: A Playground model, which the official code spares the aggressive start.
    """

    hires: bool = False
    v_prediction: bool = False
    playground: bool = False


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
class Plan:
    """What one pass gets; plain data.

    Attributes:
        unet: The UNet's sites.
        latent: Latent (height, width) the plan is for; a UNet call at another size is left alone.
        native: Pixels per side the model was trained at.
        preset: The preset used (never Auto).
        strided: When the strided pair is active.
        pooled: When the pooled pair is active.
        windows: The self-attentions that get windows, for the whole pass.
        window_shift: How the windows move.
        reason: Why nothing is active; empty if something is.
    """

    unet: UNetMap
    latent: Size
    native: int
    preset: Preset = Preset.X2
    strided: Span = Span()
    pooled: Span = Span()
    windows: tuple[WindowSite, ...] = ()
    window_shift: WindowShift = WindowShift.CYCLE
    reason: str = ""

    @property
    def active(self) -> bool:
        return not self.reason

    @property
    def strided_at(self) -> int:
        """The input block with the strided downsampler: the first one of SD, the second one of SDXL."""
        return self.unet.downs[1 if self.unet.family is Family.SDXL else 0]

    @property
    def pooled_at(self) -> int:
        """The input block whose output is pooled: the first after the first downsampler."""
        return self.unet.downs[0] + 1

    def sizes(self, *, strided: bool, pooled: bool) -> FeatureSizes:
        """The feature sizes inside a UNet call in which the given pairs are active."""
        return feature_sizes(
            self.unet, self.latent, self.strided_at if strided else None, self.pooled_at if pooled else None
        )

    def window_size(self, site: WindowSite, sizes: FeatureSizes) -> Size:
        """The size of the feature map a self-attention sees."""
        return sizes.skips[self.unet.partner(site.block)] if site.output else sizes.inside[site.block]

    def _odd_windows(self) -> bool:
        """Whether windows meet a side they can cut in two only after resizing it, in any phase of the pass."""
        phases = itertools.product({False, self.strided.end > 0}, {False, self.pooled.end > 0})
        sizes = [self.sizes(strided=strided, pooled=pooled) for strided, pooled in phases]
        return any(side % 2 for at in sizes for site in self.windows for side in self.window_size(site, at))

    def describe(self, steps: int | None = None) -> str:
        """What is active, in words: as shares of the pass, or in steps if their number is known."""
        if not self.active:
            return self.reason

        def until(end: float) -> str:
            return f"{end:.0%}" if steps is None else f"step {int(steps * end)}"

        ends = sorted({s.end for s in (self.strided, self.pooled) if (s.steps(steps) if steps else s.end > s.start)})
        parts: list[str] = []
        if ends:
            stronger = f" (stronger until {until(ends[0])})" if len(ends) > 1 else ""
            parts.append(f"RAU-Net until {until(ends[-1])}{f' of {steps}' if steps else ''}{stronger}")
        if self.windows:
            parts.append("MSW-MSA" + " on resized odd feature maps" * self._odd_windows())
        return ", ".join(parts) or "nothing: the pass is too short for the chosen T1 and T2"


def make_plan(options: Options, unet: UNetMap, latent: Size, task: Task = Task()) -> Plan:
    """The plan for one pass.

    Args:
        options: What the user asked for; `enabled` is not looked at.
        unet: The UNet's sites.
        latent: Latent (height, width) of the pass.
        task: What else the host knows.
    """
    native = options.native_size or _native_side(options.preset, unet.family, task)
    height, width = latent[0] * CELL, latent[1] * CELL

    def nothing(reason: str) -> Plan:
        return Plan(unet, latent, native, reason=reason)

    if options.passes is (Passes.FIRST if task.hires else Passes.HIRES):
        return nothing(
            f"nothing: this is a {'hires' if task.hires else 'first'} pass, Passes is {options.passes.value}"
        )
    if height * width <= NATIVE_AREA_LIMIT * native * native:
        return nothing(f"nothing to do at {width}x{height}: the model was made for {native}x{native}")
    if options.preset is Preset.TURBO and unet.family is not Family.SDXL:
        return nothing(f"nothing: the Turbo preset is for SDXL-Turbo, this model is {unet.family.value}")
    preset = options.preset
    if preset in (Preset.AUTO, Preset.CUSTOM):
        preset = Preset.X4 if min(height, width) >= X4_SIDES * native else Preset.X2
    strided, pooled = _spans(options, preset, unet, task) if options.rau_net else (Span(), Span())
    windows = _windows(unet) if options.msw_msa else ()
    if not windows and strided.end == pooled.end == 0:
        return nothing("nothing: RAU-Net and MSW-MSA are both off")
    shown = Preset.CUSTOM if options.preset is Preset.CUSTOM else preset
    return Plan(unet, latent, native, shown, strided, pooled, windows, options.window_shift)


def _native_side(preset: Preset, family: Family, task: Task) -> int:
    if preset is Preset.TURBO:
        return NATIVE_SIDE_TURBO
    return NATIVE_SIDE_SD2_V if family is Family.SD2 and task.v_prediction else NATIVE_SIDE[family]


def _spans(options: Options, preset: Preset, unet: UNetMap, task: Task) -> tuple[Span, Span]:
    """When the strided and the pooled pair are active.

    SD runs the strided pair until T1 and the pooled pair until T2, SDXL the other way round. The aggressive start
    of SDXL is not for inpainting (9-channel) and Playground models; a T2 of one's own replaces it.
    """
    sdxl = unet.family is Family.SDXL
    t1, t2 = (options.t1, options.t2) if options.preset is Preset.CUSTOM else PRESETS[preset, sdxl]
    if not sdxl:
        return Span(0, t1), Span(0, t2)
    if preset is Preset.X2 and t2 == 0 and unet.in_channels != 9 and not task.playground:
        aggressive = min(AGGRESSIVE_SHARE, t1)
        return Span(0, aggressive), Span(aggressive, t1)
    return Span(0, t2), Span(0, t1)


def _windows(unet: UNetMap) -> tuple[WindowSite, ...]:
    """The self-attentions of the finest level that has any, in the order they run."""
    finest = min(unet.level(i) for i, block in enumerate(unet.inputs) if block.attentions)
    inside = [i for i in range(len(unet.inputs)) if unet.level(i) == finest]
    sites = [WindowSite(name, i, output=False) for i in inside for name in unet.inputs[i].attentions]
    for index in (unet.partner(i) for i in reversed(inside)):
        sites += [WindowSite(name, index, output=True) for name in unet.outputs[index].attentions]
    return tuple(sites)
