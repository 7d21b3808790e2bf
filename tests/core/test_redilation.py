"""ScaleCrafter's re-dilation: equal to the official processor per convolution and for whole UNets at every step.

The official code is no package; what it computes is written down here independently (`reference`, `OFFICIAL`): resize
the input bilinearly by ceil(d) / d, convolve with dilation and padding ceil(d), resize the output to input / stride.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Method,
    Options,
    Plan,
    Preset,
    Refused,
    Run,
    Schedule,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.planning_scalecrafter import TAU
from hidiffusion_ext.core.redilation import factor_at, input_size
from ldm_unet import LdmUNet

NATIVE = 64


def reference(conv: nn.Conv2d, x: torch.Tensor, factor: float) -> torch.Tensor:
    """The official processor for a 3x3 convolution at one factor for both axes."""
    dilation = math.ceil(factor)
    stride = conv.stride[0]
    enlarged = [round(side * (dilation / factor)) for side in x.shape[-2:]]
    out = F.interpolate(x, size=enlarged, mode="bilinear")
    out = F.conv2d(out, conv.weight, conv.bias, stride, dilation, dilation)
    return F.interpolate(out, size=[side // stride for side in x.shape[-2:]], mode="bilinear")


OFFICIAL = {
    (Family.SD1, 2): {"down.1": 2, "down.2": 2, "down.3": 2, "mid": 2, "up.0": 2, "up.1": 2, "up.2": 2},
    (Family.SD1, 2.5): {"down.1": 2.5, "down.2": 2.5, "down.3": 2.5, "mid": 2.5, "up.0": 2.5, "up.1": 2.5, "up.2": 2.5},
    (Family.SD1, 4): {"down.1": 2, "down.2": 3, "down.3": 4, "mid": 4, "up.0": 4, "up.1": 3, "up.2": 2},
    (Family.SD2, 2): {"down.1": 2, "down.2": 2, "down.3": 2, "mid": 2, "up.0": 2, "up.1": 2, "up.2": 2},
    (Family.SD2, 4): {"down.2": 3, "down.2.ds": 4, "down.3": 4, "mid": 4, "up.0": 4, "up.1": 4, "up.2": 3, "up.3": 2},
    (Family.SDXL, 2): {"mid": 2, "up.0": 2},
    (Family.SDXL, 2.5): {"mid": 2.5, "up.0": 2.5},
    (Family.SDXL, 4): {"down.2": 4, "mid": 4, "up.0": 4, "up.1": 3, "up.2": 2},
}
"""The official configs: factor per block under diffusers' names; `.ds` is a downsampler with another one."""

OFFICIAL_TAU = {
    (Family.SD1, 2): 30,
    (Family.SD1, 2.5): 35,
    (Family.SD1, 4): 35,
    (Family.SD2, 2): 20,
    (Family.SD2, 4): 37,
    (Family.SDXL, 2): 30,
    (Family.SDXL, 2.5): 30,
    (Family.SDXL, 4): 35,
}
"""Re-dilated steps of 50."""


def official_factors(unet: LdmUNet, table: dict[str, float]) -> dict[nn.Conv2d, float]:
    """The convolutions of an ldm UNet with their official factors."""
    factors: dict[nn.Conv2d, float] = {}
    for name, factor in table.items():
        part, *numbers = name.split(".")
        k = int(numbers[0]) if numbers else 0
        if part == "mid":
            blocks = [unet.middle_block]
        else:
            side = unet.input_blocks if part == "down" else unet.output_blocks
            blocks = list(side[3 * k + 1 : 3 * k + 4] if part == "down" else side[3 * k : 3 * k + 3])
        for layer in (layer for block in blocks for layer in block):
            if hasattr(layer, "in_layers") and "ds" not in numbers:
                factors |= {layer.in_layers[2]: factor, layer.out_layers[3]: factor}
            elif hasattr(layer, "op"):
                factors[layer.op] = factor
            elif hasattr(layer, "use_conv") and "ds" not in numbers:
                factors[layer.conv] = factor
    return factors


def scalecrafter_plan(unet: nn.Module, latent: tuple[int, int], **options: object) -> Plan:
    values = {"method": "ScaleCrafter", "native_size": NATIVE, "msw_msa": False, **options}
    return make_plan(Options.from_mapping(values), map_unet(unet), latent)


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize(("family", "enlargement"), OFFICIAL)
def test_every_step_equals_the_official_code(family: Family, enlargement: float, steps: int) -> None:
    depth = 2 if family is Family.SDXL else 1
    unet = tiny_unet(family, depth=depth, deep=depth)
    side = int(enlargement * 16)  # halves evenly: the official code rounds odd sizes down
    latent = (side, side)
    plan = scalecrafter_plan(unet, latent, native_size=128)
    theirs = copy.deepcopy(unet)
    factors = official_factors(theirs, OFFICIAL[family, enlargement])
    assert len(plan.redilations) == len(factors)
    tau = OFFICIAL_TAU[family, enlargement]
    timesteps = uniform_timesteps(steps)
    progressive = enlargement == 4
    with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(timesteps))):
        for step in range(steps):
            x, context = inputs(latent, seed=step)
            t = torch.tensor([timesteps[step]])
            active = step < int(steps * tau / 50)
            for conv, full in factors.items():
                used = max(math.ceil(full * ((tau - step * 50 / steps) / tau)), 2) if progressive else full
                conv.__dict__.pop("forward", None)
                if active:
                    conv.forward = MethodType(lambda conv, x, used=used: reference(conv, x, used), conv)
            ours, expected = unet(x, t, context=context), theirs(x, t, context=context)
            assert 0.1 < float(expected.std()) < 10
            assert float((ours - expected).abs().max()) <= 1e-4


@settings(deadline=None, max_examples=60)
@given(st.floats(1.1, 5), st.sampled_from([1, 2]), st.integers(2, 12), st.integers(2, 12))
def test_one_convolution_equals_the_official_processor(factor: float, stride: int, height: int, width: int) -> None:
    conv = nn.Conv2d(3, 4, 3, stride, 1).requires_grad_(False)
    x = torch.randn(2, 3, 2 * height, 2 * width)
    with ExitStack() as stack:
        redilated(stack, conv, x, (factor, factor))
        torch.testing.assert_close(conv(x), reference(conv, x, factor), atol=1e-5, rtol=0)
    assert conv.dilation == conv.padding == (1, 1)


def redilated(stack: ExitStack, conv: nn.Conv2d, x: torch.Tensor, factor: tuple[float, float]) -> None:
    """Re-dilates a lone convolution through the same code as a UNet's."""
    from hidiffusion_ext.core import apply
    from hidiffusion_ext.core.plan import Redilation, Span

    holder = nn.Sequential(conv)
    run = Run(Schedule([999.0]))
    run.sizes = apply.raunet.FeatureSizes((), ())
    apply._redilate(stack, holder, run, Redilation("0", factor, Span(0, 1), progressive=False))


def test_the_axes_are_dilated_by_their_own_factors() -> None:
    conv = nn.Conv2d(1, 1, 3, 1, 1, bias=False).requires_grad_(False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    with ExitStack() as stack:
        redilated(stack, conv, x, (1.0, 3.0))
        rows, columns = conv(x)[0, 0].nonzero(as_tuple=True)
    assert set(rows.tolist()) == {3, 4, 5}
    assert set(columns.tolist()) == {1, 4, 7}


def test_a_progressive_factor_shrinks_to_two() -> None:
    factors = [factor_at((4.0, 1.0), step, 35, progressive=True) for step in range(35)]
    assert factors[0] == (4.0, 1.0)
    assert factors[-1] == (2.0, 1.0)
    assert all(a[0] >= b[0] for a, b in zip(factors, factors[1:]))
    assert factor_at((2.5, 2.5), 3, 35, progressive=False) == (2.5, 2.5)


def test_fractional_factors_enlarge_the_input() -> None:
    assert input_size((64, 64), (2.5, 2.0)) == (77, 64)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(Family)), st.integers(16, 40), st.integers(16, 40))
def test_any_size_and_aspect_ratio_runs_and_leaves_nothing(family: Family, height: int, width: int) -> None:
    unet = tiny_unet(family, sized=True)
    x, context = inputs((height, width))
    t = torch.tensor([999.0])
    with torch.inference_mode():
        before = unet(x, t, context=context)
        with hidiffusion(unet, scalecrafter_plan(unet, (height, width)), Run(Schedule(uniform_timesteps(10)))):
            patched = unet(x, t, context=context)
        assert patched.shape == before.shape
        assert not torch.equal(patched, before)
        assert torch.equal(unet(x, t, context=context), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())


def test_auto_follows_the_size_of_each_axis() -> None:
    unet = tiny_unet(Family.SD1)
    wide = scalecrafter_plan(unet, (8, 20))
    assert {site.factor for site in wide.redilations} == {(1.0, 2.5)}
    assert not wide.redilations[0].progressive
    assert wide.redilations[0].span.end == pytest.approx(TAU[Family.SD1][1][1])
    between = scalecrafter_plan(unet, (18, 18))
    assert between.redilations[0].span.end == pytest.approx(0.65)
    assert scalecrafter_plan(unet, (16, 24)).preset is Preset.X4
    assert scalecrafter_plan(unet, (16, 16), t1=0.3).redilations[0].span.end == 0.3
    with pytest.raises(Refused, match="Turbo"):
        scalecrafter_plan(unet, (16, 16), preset="Turbo")


def test_the_plan_says_so() -> None:
    unet = tiny_unet(Family.SD1)
    assert (
        scalecrafter_plan(unet, (16, 16)).describe(Schedule(uniform_timesteps(50))) == "re-dilation until step 30 of 50"
    )
    assert scalecrafter_plan(unet, (16, 16), msw_msa=True).describe() == "re-dilation until 60% of the noise, MSW-MSA"
    assert Options.from_mapping({"method": "scalecrafter"}).method is Method.SCALECRAFTER
