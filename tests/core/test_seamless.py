"""Seamless tiling: where the model's convolutions go on at a picture's other edge, so does everything of ours."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from plans import IN_A_PASS, redilations, stages
from torch import nn
from unets import inputs, tiny_unet

from hidiffusion_ext.core import Family, Method, Options, Plan, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.parts.raunet import pool
from hidiffusion_ext.core.parts.relay import enlarge, shrink
from hidiffusion_ext.core.parts.split_guidance import low_pass
from hidiffusion_ext.core.unet_map import BORDERED

SEAMLESS = (True, True)


def tiled(family: Family) -> nn.Module:
    """As hosts make a model's convolutions for seamless pictures."""
    unet = tiny_unet(family)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    return unet


UNETS = {family: tiled(family) for family in (Family.SD1, Family.SDXL)}


def asymmetric(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    raise AssertionError("not called here")


def test_the_map_tells_along_which_axes() -> None:
    unet = tiny_unet()
    assert map_unet(unet).seamless == BORDERED
    assert map_unet(UNETS[Family.SD1]).seamless == SEAMLESS
    first = unet.input_blocks[0][0]
    first.padding_modeX, first.padding_modeY = "circular", "constant"  # as asymmetric tiling leaves them there
    assert map_unet(unet).seamless == BORDERED
    first._conv_forward = asymmetric.__get__(first)
    assert map_unet(unet).seamless == (False, True)
    first._conv_forward = nn.Conv2d._conv_forward.__get__(first)  # as it puts it back
    assert map_unet(unet).seamless == BORDERED


def rolled_off(unet: nn.Module, plan: Plan) -> float:
    """By how much the answer to a picture rolled by half, rolled back, is another one, over its standard deviation."""
    x, text = inputs(plan.latent)
    half = [side // 2 for side in plan.latent]
    answers: list[torch.Tensor] = []
    for shift in ([0, 0], half):
        with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule([999.0, 600.0, 100.0]))):
            answer = unet(x.roll(shift, (-2, -1)), torch.tensor([999.0]), context=text)
        answers.append(answer.roll([-each for each in shift], (-2, -1)))
    return float((answers[0] - answers[1]).abs().max() / answers[0].std())


@pytest.mark.parametrize("method", IN_A_PASS)
@pytest.mark.parametrize("family", UNETS)
def test_a_method_has_no_edges(family: Family, method: Method) -> None:
    """At twice the native side, and at half again of it, where factors of re-dilation are not whole."""
    unet = UNETS[family]
    native, side = (256, 48) if method is Method.SCALECRAFTER else (128, 32)
    plan = make_plan(Options(native_size=native, method=method, t1=0.5), map_unet(unet), (side, side))
    assert rolled_off(unet, plan) < 1e-3
    if stages(plan) or redilations(plan):
        bordered = dataclasses.replace(plan, unet=dataclasses.replace(plan.unet, seamless=BORDERED))
        assert rolled_off(unet, bordered) > 1e-2


def test_parts_that_meet_edges_have_none() -> None:
    x = torch.randn(1, 2, 16, 24)
    for change in (
        lambda x: low_pass(x, 2.0, SEAMLESS),
        lambda x: shrink(enlarge(x, (32, 48), SEAMLESS), (16, 24)),
    ):
        rolled = change(x.roll((8, 12), (-2, -1))).roll((-8, -12), (-2, -1))
        torch.testing.assert_close(rolled, change(x), atol=1e-5, rtol=1e-5)
    odd = x[..., :15, :23]
    torch.testing.assert_close(pool(odd, SEAMLESS)[..., -1, 0], odd[..., [-1, 0], :2].mean((2, 3)))
