"""Hosts keep weights elsewhere and in other types, and assemble them in a module's forward: only that may read them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Options, Run, Schedule, hidiffusion, make_plan, map_unet
from ldm_unet import LdmUNet

STEPS = 10
LATENT = (24, 20)


class Stored:
    """Weights in half precision that only the module's own forward may read."""

    _parameters: dict[str, Any]
    reading = False

    @property
    def weight(self) -> torch.Tensor:
        assert self.reading, "a weight was read outside of its module's forward"
        return self._parameters["weight"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.reading = True
        try:
            bias = self._parameters["bias"]
            return self.apply_weight(x, self.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
        finally:
            self.reading = False


class StoredConv2d(Stored, nn.Conv2d):
    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return self._conv_forward(x, weight, bias)


class StoredLinear(Stored, nn.Module):
    """Not an nn.Linear, as on Forge."""

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias)


def stored(unet: LdmUNet) -> LdmUNet:
    """A copy of the UNet with half-precision weights that nobody else may read."""
    unet = copy.deepcopy(unet)
    for module in unet.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.half()
            module.__class__ = StoredConv2d if isinstance(module, nn.Conv2d) else StoredLinear
    return unet


METHODS: list[dict[str, Any]] = [
    {"method": "HiDiffusion", "preset": "2x"},
    {"method": "HiDiffusion", "preset": "4x"},
    {"method": "ScaleCrafter", "preset": "2x"},
    {"method": "ScaleCrafter", "preset": "4x", "dispersion": True},
]


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("options", METHODS, ids=lambda options: " ".join(map(str, options.values())))
def test_no_weight_is_read_but_by_its_own_module(family: Family, options: dict[str, Any]) -> None:
    plain = tiny_unet(family, sized=True)
    for weight in plain.parameters():
        weight.copy_(weight.half())
    unet = stored(plain)
    with pytest.raises(AssertionError, match="outside"):
        _ = unet.input_blocks[3][0].op.weight
    assert map_unet(unet) == map_unet(plain)
    plan = make_plan(Options.from_mapping({"native_size": 64, **options}), map_unet(unet), LATENT)
    x, context = inputs(LATENT)
    outputs = []
    for each in (plain, unet):
        run = Run(Schedule(uniform_timesteps(STEPS)))
        with torch.inference_mode(), hidiffusion(each, plan, run), run.base_evaluation():
            base = each(x, torch.tensor([999.0]), context=context)
        run = Run(Schedule(uniform_timesteps(STEPS)))
        with torch.inference_mode(), hidiffusion(each, plan, run):
            outputs.append((base, each(x, torch.tensor([999.0]), context=context)))
    for ours, expected in zip(*outputs):
        assert torch.equal(ours, expected)
