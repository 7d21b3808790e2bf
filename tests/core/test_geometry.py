"""Convolutions whose geometry somebody else keeps, too: followed where it can be, noticed where it cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from snapshot import snapshot
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Options, Refused, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.geometry import OWN_WAY
from ldm_unet import LdmUNet

LATENT = (16, 24)
METHODS: dict[str, dict[str, Any]] = {
    "HiDiffusion": {"t2": 0.4},
    "ScaleCrafter": {"method": "ScaleCrafter", "preset": "4x"},
    "dispersed": {"method": "ScaleCrafter", "preset": "4x", "dispersion": True},
}


def asymmetric_tiling(unet: LdmUNet, *, on: bool) -> None:
    """What it leaves on every convolution: arithmetic of its own, with paddings worked out once."""

    def own(self: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any) -> torch.Tensor:
        x = F.pad(x, self.paddingX, mode=self.padding_modeX)
        x = F.pad(x, self.paddingY, mode=self.padding_modeY)
        return F.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)

    for conv in convolutions(unet):
        left, right, top, bottom = conv._reversed_padding_repeated_twice
        conv.paddingX, conv.paddingY = (left, right, 0, 0), (0, 0, top, bottom)
        conv.padding_modeX = conv.padding_modeY = "circular" if on else "constant"
        conv._conv_forward = own.__get__(conv)


def convolutions(unet: LdmUNet) -> list[Any]:
    return [module for module in unet.modules() if isinstance(module, nn.Conv2d)]


def called(unet: LdmUNet, method: str) -> torch.Tensor:
    plan = make_plan(Options.from_mapping({"native_size": 64, **METHODS[method]}), map_unet(unet), LATENT)
    x, context = inputs(LATENT)
    state = snapshot(unet)
    try:
        with torch.inference_mode(), hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(10)))):
            return unet(x, torch.tensor([901.0]), context=context)
    finally:
        assert snapshot(unet) == state


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_asymmetric_tiling_is_followed(method: str, on: bool) -> None:
    unet, tiled = tiny_unet(), tiny_unet()
    asymmetric_tiling(tiled, on=on)
    for conv in convolutions(unet):
        conv.padding_mode = "circular" if on else "zeros"
    torch.testing.assert_close(called(tiled, method), called(unet, method), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["HiDiffusion", "dispersed"])
def test_a_convolution_with_a_geometry_of_its_own_is_noticed(method: str) -> None:
    unet = tiny_unet()
    for conv in convolutions(unet):
        stride, padding = conv.stride, conv.padding

        def own(x: Any, weight: Any, bias: Any, stride: Any = stride, padding: Any = padding) -> torch.Tensor:
            return F.conv2d(x, weight, bias, stride, padding)

        conv._conv_forward = own
    with pytest.raises(Refused, match=OWN_WAY):
        called(unet, method)


def test_a_dispersed_convolution_that_is_not_given_the_marked_input_is_noticed() -> None:
    unet = tiny_unet()
    for conv in convolutions(unet):
        original = conv.forward
        conv.forward = lambda x, original=original: original(x.as_subclass(torch.Tensor))
    called(unet, "ScaleCrafter")
    with pytest.raises(Refused, match=OWN_WAY):
        called(unet, "dispersed")
