"""What is in a plan, where there is any of it."""

from __future__ import annotations

from collections.abc import Sequence

from hidiffusion_ext.core import Conflict, Method, Need, Part, Plan, Span
from hidiffusion_ext.core.methods import METHODS
from hidiffusion_ext.core.native_first import MAKE_TWO
from hidiffusion_ext.core.parts.anchor import Anchor
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.deep_cache import DeepCache
from hidiffusion_ext.core.parts.guidance_interval import GuidanceInterval
from hidiffusion_ext.core.parts.raunet import POOLED, STRIDED, Pair, RAUNet
from hidiffusion_ext.core.parts.redilation import DISPERSION, Redilation, Site
from hidiffusion_ext.core.parts.relay import Relay, Stage
from hidiffusion_ext.core.parts.split_guidance import SplitGuidance
from hidiffusion_ext.core.parts.windows import MSWMSA, ODD

PARTS: dict[str, type[Part]] = {
    kind.name: kind
    for kind in (
        RAUNet,
        Redilation,
        DampedGuidance,
        MSWMSA,
        SplitGuidance,
        Anchor,
        Relay,
        DeepCache,
        GuidanceInterval,
    )
}
"""All kinds of parts, by their names."""

IN_A_PASS: list[Method] = [method for method in METHODS if method not in MAKE_TWO]
"""The methods that do something of their own in a pass; those that make two passes of one are HiDiffusion in them."""

NOTES = {*PARTS, STRIDED, POOLED, DISPERSION, ODD} - {RAUNet.name, DeepCache.name, GuidanceInterval.name}
"""All that can be noted as done in a single call of the UNet."""


def pairs(plan: Plan) -> tuple[Pair, Pair]:
    """The strided and the pooled pair, of which none may be due."""
    part = plan.part(RAUNet)
    return (part.strided, part.pooled) if part else (Pair(), Pair())


def redilations(plan: Plan) -> Sequence[Site]:
    part = plan.part(Redilation)
    return part.sites if part else ()


def span_of(plan: Plan, kind: type[Redilation | DampedGuidance]) -> Span:
    """When re-dilation or noise-damped guidance is due."""
    part = plan.part(kind)
    return part.span if part else Span()


def stages(plan: Plan) -> Sequence[Stage]:
    part = plan.part(Relay)
    return part.stages if part else ()


def on_guidance(plan: Plan) -> tuple[float, float]:
    """The ratio of split guidance and the anchor's strength, both neutral where there is none."""
    split, anchor = plan.part(SplitGuidance), plan.part(Anchor)
    return split.ratio if split else 1.0, anchor.strength if anchor else 0.0


REASON = "of a reason"


def held(*needs: Need, reason: str = REASON) -> tuple[Conflict, ...]:
    """Somebody else holds what parts need."""
    return (Conflict(reason, frozenset(needs)),)
