"""Windows: partition and reverse undo each other, and windows hold what they should."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from unets import inputs, shared_unet

from hidiffusion_ext.core import Family, Options, Run, Schedule, Situation, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.parts.windows import (
    MSWMSA,
    SHIFTS,
    cycle_index,
    random_index,
    window_partition,
    window_reverse,
    window_shift,
)
from hidiffusion_ext.core.resizing import bicubic
from hidiffusion_ext.core.unet_map import BORDERED

sides = st.integers(1, 12)
numbers = st.integers(2, 5)


@given(st.integers(1, 3), sides, sides, st.integers(0, SHIFTS - 1), numbers)
def test_reverse_undoes_partition_exactly_where_sides_can_be_cut(
    batch: int, height: int, width: int, index: int, across: int
) -> None:
    size = across * height, across * width
    x = torch.arange(batch * size[0] * size[1] * 3, dtype=torch.float32).view(batch, -1, 3)
    shift = window_shift(size, index, across)
    windows = window_partition(x, size, shift, across=across)
    assert windows.shape == (across**2 * batch, height * width, 3)
    assert torch.equal(window_reverse(windows, size, shift, across=across), x)


@given(st.integers(3, 41), st.integers(3, 41), st.integers(0, SHIFTS - 1), numbers)
def test_any_size_comes_back_in_its_own_shape(height: int, width: int, index: int, across: int) -> None:
    x = torch.randn(2, height * width, 4, generator=torch.Generator().manual_seed(0))
    shift = window_shift((height, width), index, across)
    windows = window_partition(x, (height, width), shift, across=across)
    assert windows.shape[1] == math.ceil(height / across) * math.ceil(width / across)
    assert window_reverse(windows, (height, width), shift, across=across).shape == x.shape


@pytest.mark.parametrize(
    ("family", "latent", "over_picture", "across"),
    [
        (Family.SD1, (32, 32), True, 4),
        (Family.SD1, (24, 24), True, 3),
        (Family.SD1, (16, 16), True, 2),
        (Family.SD1, (32, 32), False, 2),
        (Family.SD1, (34, 32), True, 2),  # neither four nor three
        (Family.SD1, (40, 24), True, 4),  # 3.9 times
        (Family.SDXL, (32, 32), True, 4),
        (Family.SDXL, (36, 28), True, 2),  # its finest self-attention sees 18x14
    ],
)
def test_second_passes_have_windows_of_native_size_if_their_maps_can_be_cut(
    family: Family, latent: tuple[int, int], over_picture: bool, across: int
) -> None:
    plan = make_plan(
        Options(native_size=64), map_unet(shared_unet(family)), latent, Situation(over_picture, over_picture)
    )
    windows = plan.part(MSWMSA)
    assert windows is not None
    assert windows.across == across


def test_windows_of_native_size_are_those_that_attention_works_in() -> None:
    unet, x = shared_unet(), torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    plan = make_plan(Options(native_size=64, rau_net=False), map_unet(unet), (32, 32), Situation(True, True))
    tokens: list[tuple[int, ...]] = []
    context = inputs((32, 32))[1][:1]
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(hidiffusion(unet, plan, Run(Schedule([300.0]))))
        attention = unet.get_submodule(plan.unet.finest_attentions[0].name)
        handle = attention.register_forward_pre_hook(lambda module, args: tokens.append(tuple(args[0].shape)))
        stack.callback(handle.remove)
        unet(x, torch.tensor([300.0]), context=context)
    assert tokens[0][:2] == (16, 64)


def test_windows_are_the_shifted_quadrants() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    x = torch.stack([rows, columns], -1).view(1, 64, 2)
    first, second, third, fourth = window_partition(x, (8, 8), window_shift((8, 8), 1)).view(4, 4, 4, 2)
    assert first[0, 0].tolist() == [1, 1]
    assert second[0].tolist() == [[1, 5], [1, 6], [1, 7], [1, 0]]
    assert third[3].tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert fourth[3, 3].tolist() == [0, 0]


def test_a_side_that_cannot_be_cut_is_resized_as_the_picture_that_it_is() -> None:
    picture = torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    even = bicubic(picture, (10, 8), BORDERED)
    cut = window_partition(rearrange(picture, "b c h w -> b (h w) c"), (9, 7), (2, 2))
    assert torch.equal(cut, window_partition(rearrange(even, "b c h w -> b (h w) c"), (10, 8), (2, 2)))
    back = window_reverse(cut, (9, 7), (2, 2))
    assert torch.equal(back, rearrange(bicubic(even, (9, 7), BORDERED), "b c h w -> b (h w) c"))


@pytest.mark.parametrize(("size", "expected"), [((64, 64), (8, 8)), ((90, 160), (11, 20)), ((33, 41), (4, 5))])
def test_a_shift_is_a_quarter_of_the_window_rounded_down(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert window_shift(size, 1) == expected
    assert window_shift(size, 3) == (3 * expected[0], 3 * expected[1])


def test_more_windows_shift_by_a_quarter_of_theirs() -> None:
    assert window_shift((61, 61), 1, 4) == (4, 4)  # cut as 64x64


def test_the_cycle_uses_every_shift_equally_and_moves_at_every_step() -> None:
    for site in range(5):
        indices = [cycle_index(step, site) for step in range(20)]
        assert all(indices.count(i) == 5 for i in range(SHIFTS))
        assert all(a != b for a, b in zip(indices, indices[1:]))
    assert [cycle_index(1, site) for site in range(5)] == [1, 2, 3, 0, 1]


def test_random_shifts_come_from_the_given_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first = [random_index(generator) for generator in [torch.Generator().manual_seed(7)] for _ in range(400)]
    second = [random_index(generator) for generator in [torch.Generator().manual_seed(7)] for _ in range(400)]
    assert torch.equal(before, torch.random.get_rng_state())
    assert first == second
    draws = [
        float(torch.rand(1, generator=generator)) for generator in [torch.Generator().manual_seed(7)] for _ in first
    ]
    assert first == [sum(draw > bound for bound in (0.25, 0.5, 0.75)) for draw in draws]
