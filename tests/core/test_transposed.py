"""Which side is which makes no difference: a turned picture is made as the turned picture.

A UNet with turned kernels gives the turned answer. Nothing in the papers goes by rows or columns. HiDiffusion's
official code does in one place, which is not followed: it drops the horizontal shift of windows that are less than four
cells high.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import pytest
import torch
from any_options import options
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import IN_A_PASS, NOTES
from torch import nn
from ways import CASES, SCHEDULE, SIZES, UNETS, Pictures, error, evaluated, ways
from ways import turned as turned_map

from hidiffusion_ext.core import (
    Family,
    Method,
    Options,
    Refused,
    Run,
    Situation,
    UNetMap,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.cost import count
from hidiffusion_ext.core.native_first import first_size
from hidiffusion_ext.core.parts.windows import SHIFTS, even_size, window_partition, window_shift
from hidiffusion_ext.core.words import describe

ROUNDINGS = 1e-4
"""Of a UNet whose sums are made in another order."""


def turned(value: Any) -> Any:
    """A plan for the turned size, or a part of one: pairs of numbers are (down, across), texts have theirs as WxH."""
    if isinstance(value, UNetMap):
        return dataclasses.replace(value, seamless=value.seamless[::-1])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return type(value)(**{name: turned(part) for name, part in fields.items()})
    if isinstance(value, tuple):
        is_pair = len(value) == 2 and all(isinstance(part, (int, float)) for part in value)
        return value[::-1] if is_pair else tuple(turned(part) for part in value)
    return re.sub(r"(\d+)x(\d+)", r"\2x\1", value) if type(value) is str else value


def turned_unet(unet: nn.Module) -> nn.Module:
    """A UNet with turned kernels."""
    other = copy.deepcopy(unet)
    for module in other.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = turned_map(module.weight.data)
    return other


TURNED = {family: turned_unet(unet) for family, unet in UNETS.items()}
MAPS = {family: map_unet(unet) for family, unet in UNETS.items()}
families = st.sampled_from(list(UNETS))
situations = st.builds(Situation, *[st.booleans()] * 5)


@pytest.mark.parametrize("method", Method)
@settings(max_examples=max(100, CASES), deadline=None)
@given(options, families, st.tuples(st.integers(1, 300), st.integers(1, 300)), situations)
def test_a_turned_size_has_the_turned_plan(
    method: Method, options: Options, family: Family, latent: tuple[int, int], situation: Situation
) -> None:
    def told(size: tuple[int, int]) -> tuple[Any, str]:
        try:
            plan = make_plan(dataclasses.replace(options, method=method), MAPS[family], size, situation)
        except Refused as error:
            return None, str(error)
        return plan, describe(plan, SCHEDULE)

    plan, text = told(latent)
    other, other_text = told(latent[::-1])
    assert (other, other_text) == (turned(plan), turned(text))
    if plan is not None:
        assert count(other, SCHEDULE).shares == pytest.approx(count(plan, SCHEDULE).shares)


@settings(max_examples=max(100, CASES), deadline=None)
@given(st.integers(64, 4096), st.integers(64, 4096), st.integers(1, 2048))
def test_a_turned_picture_has_the_turned_first_pass(width: int, height: int, native: int) -> None:
    assert first_size(height, width, native) == first_size(width, height, native)[::-1]


@settings(max_examples=max(100, CASES), deadline=None)
@given(st.integers(2, 41), st.integers(2, 41), st.integers(0, SHIFTS - 1))
def test_turned_windows_hold_the_turned_cells(height: int, width: int, index: int) -> None:
    x = torch.randn(1, height, width, 2, generator=torch.Generator().manual_seed(0))

    def cut(x: torch.Tensor) -> torch.Tensor:
        """Windows of cells [4, h, w, C]."""
        size = x.shape[1], x.shape[2]
        rows, columns = (side // 2 for side in even_size(size))
        return window_partition(x.flatten(1, 2), size, window_shift(size, index)).view(4, rows, columns, -1)

    windows = cut(x)[[0, 2, 1, 3]].transpose(1, 2)  # upper right and lower left change places
    torch.testing.assert_close(cut(x.transpose(1, 2).contiguous()), windows)


def passed(unet: nn.Module, way: tuple[Options, Situation], pictures: Pictures, step: int) -> tuple[torch.Tensor, Any]:
    """The answer at a step of a pass, after its first one, and what was done."""
    plan = make_plan(way[0], map_unet(unet), tuple(pictures.noise.shape[-2:]), way[1])
    run = Run(SCHEDULE, torch.Generator().manual_seed(1))
    with torch.inference_mode(), hidiffusion(unet, plan, run):
        answers = [evaluated(unet, plan, run, pictures, [SCHEDULE.timesteps[at]]) for at in sorted({0, step})]
    return answers[-1], run.done.least


@pytest.mark.parametrize("method", IN_A_PASS)
@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_turned_kernels_give_the_turned_picture(method: Method, data: st.DataObject) -> None:
    family, way = data.draw(families), data.draw(st.sampled_from(ways(method)))
    size, step = data.draw(SIZES), data.draw(st.integers(0, SCHEDULE.steps - 1))
    pictures = Pictures(1, size, seed=0)
    answer, done = passed(UNETS[family], way, pictures, step)
    other, done_there = passed(TURNED[family], way, pictures.turned(), step)
    assert error(turned_map(other), answer) < ROUNDINGS
    assert done == done_there


def test_everything_is_among_it_and_unturned_kernels_would_show() -> None:
    done = set[str]()
    pictures = Pictures(1, (16, 13), seed=0)
    for way in (way for method in IN_A_PASS for way in ways(method)):
        answer, found = passed(UNETS[Family.SD1], way, pictures, SCHEDULE.steps - 1)
        done |= set(found)
    assert done == NOTES
    other, _ = passed(UNETS[Family.SD1], way, pictures.turned(), SCHEDULE.steps - 1)
    assert error(turned_map(other), answer) > 100 * ROUNDINGS
