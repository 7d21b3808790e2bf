"""The official ScaleCrafter to compare with, and plans of ours to compare it to.

The official code is no package; what it computes is written down here independently (`reference`, `OFFICIAL`): resize
the input bilinearly by ceil(d) / d, convolve with dilation and padding ceil(d), resize the output to input / stride.
"""

from __future__ import annotations

import math
from types import MethodType

import torch
import torch.nn.functional as F
from torch import nn

from hidiffusion_ext.core import Family, Options, Plan, make_plan, map_unet
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

OFFICIAL_BASE = {
    Family.SD1: {"down.2": 3, "down.3": 4, "mid": 4, "up.0": 4, "up.1": 3},
    Family.SD2: {"down.2": 3, "down.2.ds": 4, "down.3": 4, "mid": 4, "up.0": 4, "up.1": 4, "up.2": 3},
    Family.SDXL: {"mid": 2, "up.0": 2},
}
"""The official configs for the base evaluation at four times the native side."""


Factors = dict[nn.Conv2d, float]
"""How many times further each of some convolutions looks."""


def official_factors(unet: LdmUNet, table: dict[str, float]) -> Factors:
    """The convolutions of an ldm UNet with their official factors."""
    factors: Factors = {}
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


def official_steps(full: Factors, steps: int, tau: int, *, progressive: bool) -> list[Factors]:
    """The factors at every step of a pass: those of the config for `tau` of 50 steps, shrinking to 2 if progressive."""

    def shrunk(factor: float, step: int) -> float:
        return max(math.ceil(factor * ((tau - step * 50 / steps) / tau)), 2) if progressive else factor

    active = int(steps * tau / 50)
    return [{conv: shrunk(full[conv], step) for conv in full} if step < active else {} for step in range(steps)]


def first_steps(by_step: list[Factors]) -> list[int]:
    """The steps at which the factors are not those of the step before."""
    return [step for step, factors in enumerate(by_step) if step == 0 or factors != by_step[step - 1]]


def call_officially(unet: LdmUNet, factors: Factors, *args: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """What the UNet gives while these convolutions are the official processor's."""
    for conv, factor in factors.items():
        conv.forward = MethodType(lambda conv, x, factor=factor: reference(conv, x, factor), conv)
    result = unet(*args, context=context)
    for conv in factors:
        del conv.forward
    return result


def scalecrafter_plan(unet: nn.Module, latent: tuple[int, int], **options: object) -> Plan:
    values = {"method": "ScaleCrafter", "native_size": NATIVE, "msw_msa": False, **options}
    return make_plan(Options.from_mapping(values), map_unet(unet), latent)
