"""ScaleCrafter's layer tables (arXiv 2310.07702 and the official configs): which convolutions are re-dilated, how far.

A convolution's factor along an axis is `1 + (r - 1) * weight`, r being the picture's side over the native side and
the weight the layer's own. The weights below give the official factors at the official square sizes (2, 2.5 and 4
times the native side) and every size and aspect ratio between and beyond.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..options import Options, Preset, Refused
from ..parts.damped_guidance import DampedGuidance
from ..parts.redilation import Redilation, Site
from ..plan import Plan, Situation
from ..schedule import Span
from ..sizes import CELL
from ..unet_map import Family

GRADED_FROM = 3
"""From this multiple of the native side on, the layers get factors graded by level, which shrink over the steps."""

THIRD = 1 / 3


@dataclasses.dataclass(frozen=True)
class Weights:
    """How much of the enlargement each part of the UNet gets, by level (how often the feature map has been halved).

    Attributes:
        inputs: Residual blocks on the way down.
        downs: Downsamplers that leave the level.
        middle: The middle block.
        outputs: Residual blocks and upsamplers on the way up.
        dispersed: The levels whose convolutions can be dispersed: (inputs, downs, outputs); the middle block's can.
    """

    inputs: dict[int, float]
    downs: dict[int, float]
    middle: float
    outputs: dict[int, float]
    dispersed: tuple[set[int], set[int], set[int]] | None = None


SD_DISPERSED = ({3}, {2}, {2, 3})
SDXL_DISPERSED = ({2}, set[int](), {2})
SD = {1: 1.0, 2: 1.0, 3: 1.0}
SD1_GRADED = {1: THIRD, 2: 2 * THIRD, 3: 1.0}
WEIGHTS = {
    (Family.SD1, Preset.X2): Weights(SD, SD, 1.0, SD),
    (Family.SD2, Preset.X2): Weights(SD, SD, 1.0, SD),
    (Family.SDXL, Preset.X2): Weights({}, {}, 1.0, {2: 1.0}),
    (Family.SD1, Preset.X4): Weights(SD1_GRADED, SD1_GRADED, 1.0, SD1_GRADED, SD_DISPERSED),
    (Family.SD2, Preset.X4): Weights(
        {2: 2 * THIRD, 3: 1.0}, {2: 1.0}, 1.0, {0: THIRD, 1: 2 * THIRD, 2: 1.0, 3: 1.0}, SD_DISPERSED
    ),
    (Family.SDXL, Preset.X4): Weights({2: 1.0}, {}, 1.0, {0: THIRD, 1: 2 * THIRD, 2: 1.0}, SDXL_DISPERSED),
}
"""Official configs: 2x and 2.5x are the same layers with one factor, 4x grades it (4, 3 and 2)."""

BASE_WEIGHTS = {
    Family.SD1: Weights({2: 2 * THIRD, 3: 1.0}, {2: 2 * THIRD}, 1.0, {2: 2 * THIRD, 3: 1.0}),
    Family.SD2: Weights({2: 2 * THIRD, 3: 1.0}, {2: 1.0}, 1.0, {1: 2 * THIRD, 2: 1.0, 3: 1.0}),
    Family.SDXL: Weights({}, {}, THIRD, {2: THIRD}),
}
"""Official configs ("ndcfg"): the weaker re-dilation of the base evaluation in noise-damped guidance; 4x only."""

TAU = {
    Family.SD1: ((2.0, 30 / 50), (2.5, 35 / 50), (4.0, 35 / 50)),
    Family.SD2: ((2.0, 20 / 50), (2.5, 30 / 50), (4.0, 37 / 50)),
    Family.SDXL: ((2.0, 30 / 50), (2.5, 30 / 50), (4.0, 35 / 50)),
}
"""(enlargement, share that is re-dilated) of the official configs, which count steps; a share of the noise is the same
with the official schedule. Between them on straight lines."""


def planned(options: Options, plan: Plan, situation: Situation) -> Plan:
    """The plan with re-dilation.

    Raises:
        Refused: if the preset is HiDiffusion's Turbo.
    """
    if options.preset is Preset.TURBO:
        raise Refused("the Turbo preset belongs to the method HiDiffusion")
    down, across = (max(1.0, side * CELL / plan.native) for side in plan.latent)

    def factor(weight: float) -> tuple[float, float]:
        return 1 + (down - 1) * weight, 1 + (across - 1) * weight

    preset = options.preset
    if preset is Preset.AUTO:
        preset = Preset.X4 if max(down, across) >= GRADED_FROM else Preset.X2
    preset_tau = _tau(plan.unet.family, max(down, across))
    tau = options.t1 or preset_tau
    is_damped = options.damped_guidance and preset is Preset.X4
    base = {conv: weight for conv, weight, _ in _weighted_convs(plan, BASE_WEIGHTS[plan.unet.family])}
    sites = tuple(
        Site(
            conv,
            factor(weight),
            dispersed=options.dispersion and dispersed,
            base=factor(base.get(conv, 0.0) if is_damped else 0.0),
        )
        for conv, weight, dispersed in _weighted_convs(plan, WEIGHTS[plan.unet.family, preset])
    )
    redilation = Redilation(sites, Span(0, tau), progressive=preset is Preset.X4)
    plan = dataclasses.replace(plan, preset=preset, preset_t1=preset_tau)
    return plan.with_parts([redilation, DampedGuidance(redilation.span) if is_damped else None])


def _tau(family: Family, enlargement: float) -> float:
    points = TAU[family]
    for (low, before), (high, after) in zip(points, points[1:]):
        if enlargement <= high:
            return before + (after - before) * max(0.0, enlargement - low) / (high - low)
    return points[-1][1]


def _weighted_convs(plan: Plan, weights: Weights) -> Iterator[tuple[str, float, bool]]:
    """The convolutions with a weight, it, and whether they can be dispersed, in the order they run."""
    unet = plan.unet
    inputs, downs, outputs = weights.dispersed or (set[int](), set[int](), set[int]())
    for index, block in enumerate(unet.inputs):
        level = unet.level(index)
        if block.down and level - 1 in weights.downs:
            yield block.down, weights.downs[level - 1], level - 1 in downs
        if level in weights.inputs:
            yield from ((conv, weights.inputs[level], level in inputs) for conv in block.convs)
    yield from ((conv, weights.middle, weights.dispersed is not None) for conv in unet.middle.convs)
    for index, block in enumerate(unet.outputs):
        level = unet.level(unet.partner(index))
        if level in weights.outputs:
            convs = (*block.convs, *filter(None, [block.up]))
            yield from ((conv, weights.outputs[level], level in outputs) for conv in convs)
