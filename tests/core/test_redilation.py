"""ScaleCrafter's re-dilation: equal to the official processor per convolution and for whole UNets at every step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import redilations
from scalecrafter import (
    NATIVE,
    OFFICIAL,
    OFFICIAL_TAU,
    call_officially,
    first_steps,
    official_factors,
    official_steps,
    reference,
    scalecrafter_plan,
)
from torch import nn
from unets import inputs, shared_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Plan,
    Preset,
    Refused,
    Run,
    Schedule,
    Span,
    UNetMap,
    hidiffusion,
)
from hidiffusion_ext.core.methods.scalecrafter import TAU
from hidiffusion_ext.core.parts.redilation import Redilation, Site, factor_at, input_size
from hidiffusion_ext.core.sizes import CELL
from hidiffusion_ext.core.unet_map import Block


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize(("family", "enlargement"), OFFICIAL)
def test_every_step_equals_the_official_code(family: Family, enlargement: float, steps: int) -> None:
    depth = 2 if family is Family.SDXL else 1
    unet = shared_unet(family, depth=depth, deep=depth)
    cells = 16 if enlargement == 2.5 else 8  # the side halves evenly: the official code rounds odd sizes down
    side = int(enlargement * cells)
    plan = scalecrafter_plan(unet, (side, side), native_size=CELL * cells)
    timesteps = uniform_timesteps(steps)
    schedule = Schedule(timesteps)
    full = official_factors(unet, OFFICIAL[family, enlargement])
    by_step = official_steps(full, steps, OFFICIAL_TAU[family, enlargement], progressive=enlargement == 4)
    names = {module: name for name, module in unet.named_modules()}
    for step, factors in enumerate(by_step):
        part = plan.part(Redilation)
        sites = part.sites if schedule.inside(part.span, timesteps[step]) else ()
        expected = {names[conv]: (factor, factor) for conv, factor in factors.items()}
        assert {site.conv: part.factor_at(site, step, schedule, base=False) for site in sites} == expected
    first = first_steps(by_step)
    # What a step does follows from its factors alone: the first with the same ones stands for all.
    given = {step: (*inputs((side, side), seed=step), torch.tensor([timesteps[step]])) for step in [*first, steps - 1]}
    with torch.inference_mode():
        expected = {
            step: call_officially(unet, by_step[step], x, t, context=text) for step, (x, text, t) in given.items()
        }
        with hidiffusion(unet, plan, Run(schedule)):
            for step, (x, text, t) in given.items():
                assert 0.1 < float(expected[step].std()) < 10
                assert float((unet(x, t, context=text) - expected[step]).abs().max()) <= 1e-4


@settings(max_examples=60)
@given(st.floats(1.1, 5), st.sampled_from([1, 2]), st.integers(2, 12), st.integers(2, 12))
def test_one_convolution_equals_the_official_processor(factor: float, stride: int, height: int, width: int) -> None:
    conv = nn.Conv2d(3, 4, 3, stride, 1).requires_grad_(False)
    x = torch.randn(2, 3, 2 * height, 2 * width)
    torch.testing.assert_close(redilated(conv, x, (factor, factor)), reference(conv, x, factor), atol=1e-5, rtol=0)
    assert conv.dilation == conv.padding == (1, 1)


class Alone(nn.Module):
    """A convolution that is called as a UNet is."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def redilated(conv: nn.Conv2d, x: torch.Tensor, factor: tuple[float, float]) -> torch.Tensor:
    """What the convolution gives while it is the only site of a plan."""
    part = Redilation((Site("conv", factor),), Span(0, 1), progressive=False)
    nothing_else = UNetMap(Family.SD1, x.shape[1], x.shape[1], (), Block(0, (), None, None, (), ()), ())
    plan = Plan(nothing_else, (x.shape[-2], x.shape[-1]), NATIVE, parts=(part,))
    unet = Alone(conv)
    with hidiffusion(unet, plan, Run(Schedule([999.0]))):
        return unet(x, torch.tensor([999.0]))


def test_the_axes_are_dilated_by_their_own_factors() -> None:
    conv = nn.Conv2d(1, 1, 3, 1, 1, bias=False).requires_grad_(False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1
    rows, columns = redilated(conv, x, (1.0, 3.0))[0, 0].nonzero(as_tuple=True)
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


@settings(max_examples=20)
@given(st.sampled_from(list(Family)), st.integers(16, 28), st.integers(16, 28))
def test_any_size_and_aspect_ratio_runs_and_leaves_nothing(family: Family, height: int, width: int) -> None:
    unet = shared_unet(family, sized=True)
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
    unet = shared_unet(Family.SD1)
    wide = scalecrafter_plan(unet, (8, 20))
    assert {site.factor for site in redilations(wide)} == {(1.0, 2.5)}
    assert not wide.part(Redilation).progressive
    assert wide.part(Redilation).span.end == pytest.approx(TAU[Family.SD1][1][1])
    between = scalecrafter_plan(unet, (18, 18))
    assert between.part(Redilation).span.end == pytest.approx(0.65)
    assert scalecrafter_plan(unet, (16, 24)).preset is Preset.X4
    assert scalecrafter_plan(unet, (16, 16), t1=0.3).part(Redilation).span.end == 0.3
    with pytest.raises(Refused, match="Turbo"):
        scalecrafter_plan(unet, (16, 16), preset="Turbo")
