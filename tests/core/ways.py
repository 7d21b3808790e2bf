"""Everything that can be done in a pass, by the project's own lists of methods and settings, and evaluations with it.

LAW_CASES=100 makes it that many cases for each method; CI makes 3.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from leftovers import UNETS as ANY_UNETS
from torch import nn
from unets import CONTEXT

from hidiffusion_ext.core import (
    Evaluation,
    Method,
    Options,
    Plan,
    Preset,
    Run,
    Schedule,
    Situation,
)
from hidiffusion_ext.core.options import SETTINGS, Choice, FasterSecondPass, Setting

CASES = int(os.environ.get("LAW_CASES", "3"))

NATIVE = 64
"""Pixels per side: 8 cells, which a UNet of four levels halves to one."""

SIZES = st.tuples(st.integers(10, 18), st.integers(10, 18))
"""Larger ones, in cells."""

ENDS = {"t1": 0.5, "t2": 0.3}
SCHEDULE = Schedule([999.0, 600.0, 150.0])
"""A step before both ends, one before the first, and one behind them."""

SCALE = 5.0


def _calm(unet: nn.Module) -> nn.Module:
    """A copy whose normalisations do not enlarge roundings where the numbers of a group are nearly the same."""
    other = copy.deepcopy(unet)
    for module in other.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 0.1
    return other


UNETS = {family: _calm(unet) for family, unet in ANY_UNETS.items()}


def working(setting: Setting) -> Any:
    """A value with which a setting does something."""
    if isinstance(setting.default, bool):
        return True
    if setting.default is FasterSecondPass.OFF:
        return FasterSecondPass.ON
    if isinstance(setting.default, Choice) or setting.maximum is None or setting.minimum is None:
        return setting.default
    return type(setting.default)((setting.minimum + setting.maximum) / 2)


def ways(method: Method) -> list[tuple[Options, Situation]]:
    """All of a method and of what works beside it, as for a picture of twice and of four times the native side, from
    noise alone and over a picture."""
    everything = {name: working(setting) for name, setting in SETTINGS.items()}
    everything |= ENDS | {"method": method, "native_size": NATIVE}
    return [
        (Options.from_mapping(everything | {"preset": preset}), Situation(over_picture=over_picture))
        for preset in (Preset.X2, Preset.X4)
        for over_picture in (False, True)
    ]


class Pictures:
    """Latents on their way, and what they are made from.

    Args:
        count: How many.
        size: (height, width) in cells.
        seed: Of their numbers.
    """

    def __init__(self, count: int, size: tuple[int, int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.noise, self.begin = torch.randn(2, count, 4, *size, generator=generator)
        self.text = torch.randn(count, 5, CONTEXT, generator=generator)

    def taken(self, rows: Sequence[int]) -> Pictures:
        """Some of them."""
        return self._with(*(values[list(rows)] for values in (self.noise, self.begin, self.text)))

    def turned(self) -> Pictures:
        return self._with(turned(self.noise), turned(self.begin), self.text)

    def _with(self, noise: torch.Tensor, begin: torch.Tensor, text: torch.Tensor) -> Pictures:
        other = object.__new__(Pictures)
        other.noise, other.begin, other.text = noise, begin, text
        return other


def turned(x: torch.Tensor) -> torch.Tensor:
    """[..., H, W] -> [..., W, H], in memory as other tensors are."""
    return x.transpose(-1, -2).contiguous()


def evaluated(unet: nn.Module, plan: Plan, run: Run, pictures: Pictures, noise: Sequence[float]) -> torch.Tensor:
    """What guidance results in, in a call of the UNet with conditional rows first and unconditional ones behind.

    Args:
        unet: A UNet that is patched at the time.
        plan, run: Of the pass.
        pictures: The rows.
        noise: The timestep of each.
    """
    t = torch.tensor(noise)
    part = t[:, None, None, None] / 1000
    x = pictures.noise * part + pictures.begin * (1 - part)
    empty = torch.zeros_like(pictures.text)
    rows = unet(torch.cat([x, x]), torch.cat([t, t]), context=torch.cat([pictures.text, empty]))
    cond, uncond = rows.chunk(2)
    guided = uncond + SCALE * (cond - uncond)
    for change in plan.changes(run, pictures.begin):
        guided = change(Evaluation(guided, uncond, lambda: unet(x, t, context=empty)))
    return guided


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """By how much an answer is off, as a share of it."""
    return float((found - expected).norm() / expected.norm())
