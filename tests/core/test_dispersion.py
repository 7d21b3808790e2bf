"""Dispersed convolution: the transform solves its equations, and the host's own convolution carries it out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from plans import redilations
from torch import nn
from unets import inputs, shared_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Options, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.parts.dispersion import dispersed_input, dispersed_kernel, dispersion_transform
from hidiffusion_ext.core.parts.redilation import DISPERSION


def test_the_transform_has_the_published_row_sums() -> None:
    expected = torch.tensor(
        [
            [0.591, 0.331, 0.554, 0.331, 0.591],
            [0.331, 0.186, 0.314, 0.186, 0.331],
            [0.554, 0.314, 0.519, 0.314, 0.554],
            [0.331, 0.186, 0.314, 0.186, 0.331],
            [0.591, 0.331, 0.554, 0.331, 0.591],
        ],
        dtype=torch.float64,
    )
    transform = dispersion_transform()
    assert transform.shape == (25, 9)
    assert transform.dtype == torch.float64
    torch.testing.assert_close(transform.sum(1).view(5, 5), expected, atol=5e-4, rtol=0)
    assert dispersion_transform() is transform


@pytest.mark.parametrize("eta", [0.0, 0.05, 1.0])
def test_no_other_transform_meets_the_equations_better(eta: float) -> None:
    def error(transform: torch.Tensor) -> float:
        """The squared error of both sets of equations for random inputs and kernels, computed by convolutions."""
        generator = torch.Generator().manual_seed(0)
        x = torch.eye(9, dtype=torch.float64).view(9, 1, 3, 3)
        total = 0.0
        for _ in range(9):
            k = torch.randn(1, 1, 3, 3, dtype=torch.float64, generator=generator)
            large = (transform @ k.flatten()).view(1, 1, 5, 5)
            small_answer = F.conv2d(x, k, padding=1)
            up = {"size": (5, 5), "mode": "bilinear", "align_corners": True}
            structure = F.conv2d(F.interpolate(x, **up), large, padding=2) - F.interpolate(small_answer, **up)
            pixel = F.conv2d(x, large, padding=2) - small_answer
            total += float(structure.square().sum() + eta**2 * pixel.square().sum())
        return total

    best = dispersion_transform(eta=eta)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-2):
        for _ in range(5):
            other = best + size * torch.randn(25, 9, dtype=torch.float64, generator=generator)
            assert error(best) < error(other)


class LoraConv(nn.Conv2d):
    """A convolution that, like a host's, makes its weights in its forward, and whose weights nobody else may read."""

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.delta = torch.randn(self._parameters["weight"].shape) * 0.1  # type: ignore[union-attr]
        self.inside = False

    def __getattr__(self, name: str) -> object:
        if name == "weight" and not self.__dict__.get("inside", True):
            raise AssertionError("the weight was read outside the convolution's own forward")
        return super().__getattr__(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inside = True
        try:
            return self._conv_forward(x, (self.weight + self.delta).to(x.dtype), self.bias.to(x.dtype))
        finally:
            self.inside = False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_that_the_hosts_convolution_would_use_is_spread(dtype: torch.dtype) -> None:
    conv = LoraConv(3, 4, 3, 2, 2).requires_grad_(False)
    kernel = conv._parameters["weight"] + conv.delta  # type: ignore[operator]
    x = torch.randn(2, 3, 8, 10).to(dtype)
    expected = F.conv2d(x, dispersed_kernel(kernel.to(dtype)), conv.bias.to(dtype), 2, 2)
    result = conv(dispersed_input(x))
    assert type(result) is torch.Tensor
    assert torch.equal(result, expected)
    assert torch.equal(conv(x), F.conv2d(x, kernel.to(dtype), conv.bias.to(dtype), 2, 2))


def test_only_3x3_kernels_are_spread() -> None:
    x = torch.randn(1, 3, 8, 8)
    conv = nn.Conv2d(3, 4, 1)
    assert torch.equal(conv(dispersed_input(x)), conv(x))
    norm = nn.GroupNorm(1, 3)
    assert torch.equal(norm(dispersed_input(x)).as_subclass(torch.Tensor), norm(x))


@pytest.mark.parametrize("family", Family)
def test_a_unet_with_it_runs_and_is_restored(family: Family) -> None:
    unet = shared_unet(family)
    latent = (32, 24)
    x, context = inputs(latent)
    t = torch.tensor([999.0])
    values = {"method": "ScaleCrafter", "native_size": 64, "preset": "4x", "msw_msa": False}
    outputs = []
    with torch.inference_mode():
        before = unet(x, t, context=context)
        for dispersion in (False, True):
            plan = make_plan(Options.from_mapping({**values, "dispersion": dispersion}), map_unet(unet), latent)
            with hidiffusion(unet, plan, Run(Schedule(uniform_timesteps(10)))):
                outputs.append(unet(x, t, context=context))
        assert torch.equal(unet(x, t, context=context), before)
    assert not torch.equal(*outputs)
    assert type(outputs[1]) is torch.Tensor


def test_the_dispersed_layers_are_the_official_ones() -> None:
    counts = {}
    for family in Family:
        unet_map = map_unet(shared_unet(family))
        values = {"method": "ScaleCrafter", "native_size": 128, "dispersion": True}
        plan = make_plan(Options.from_mapping(values), unet_map, (64, 64))
        dispersed = [site.conv for site in redilations(plan) if site.dispersed]
        counts[family] = len(dispersed)
        assert not any(
            site.dispersed for site in redilations(make_plan(Options.from_mapping(values), unet_map, (32, 32)))
        )
        assert DISPERSION in plan.names
    # SD: 4 on the way down, the downsampler before them, 4 in the middle, twice 6 and an upsampler on the way up
    assert counts == {Family.SD1: 23, Family.SD2: 23, Family.SDXL: 4 + 4 + 7}
