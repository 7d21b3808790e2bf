"""Windows: partition and reverse undo each other, and windows hold what they should."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core.parts.windows import (
    SHIFTS,
    cycle_index,
    random_index,
    window_partition,
    window_reverse,
    window_shift,
)

even = st.integers(1, 24).map(lambda n: 2 * n)


@given(st.integers(1, 3), even, even, st.integers(0, SHIFTS - 1))
def test_reverse_undoes_partition_exactly_at_even_sizes(batch: int, height: int, width: int, index: int) -> None:
    x = torch.arange(batch * height * width * 3, dtype=torch.float32).view(batch, height * width, 3)
    shift = window_shift((height, width), index)
    windows = window_partition(x, (height, width), shift)
    assert windows.shape == (4 * batch, height * width // 4, 3)
    assert torch.equal(window_reverse(windows, (height, width), shift), x)


@given(st.integers(3, 41), st.integers(3, 41), st.integers(0, SHIFTS - 1))
def test_any_size_comes_back_in_its_own_shape(height: int, width: int, index: int) -> None:
    x = torch.randn(2, height * width, 4, generator=torch.Generator().manual_seed(0))
    shift = window_shift((height, width), index)
    windows = window_partition(x, (height, width), shift)
    assert windows.shape[1] * 4 == (height + height % 2) * (width + width % 2)
    assert window_reverse(windows, (height, width), shift).shape == x.shape


def test_windows_are_the_shifted_quadrants() -> None:
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    x = torch.stack([rows, columns], -1).view(1, 64, 2)
    first, second, third, fourth = window_partition(x, (8, 8), window_shift((8, 8), 1)).view(4, 4, 4, 2)
    assert first[0, 0].tolist() == [1, 1]
    assert second[0].tolist() == [[1, 5], [1, 6], [1, 7], [1, 0]]
    assert third[3].tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    assert fourth[3, 3].tolist() == [0, 0]


@pytest.mark.parametrize(("size", "expected"), [((64, 64), (8, 8)), ((90, 160), (11, 20)), ((33, 41), (4, 5))])
def test_a_shift_is_a_quarter_of_the_window_rounded_down(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert window_shift(size, 1) == expected
    assert window_shift(size, 3) == (3 * expected[0], 3 * expected[1])


def test_the_cycle_uses_every_shift_equally_and_moves_at_every_step() -> None:
    for site in range(5):
        indices = [cycle_index(step, site) for step in range(20)]
        assert all(indices.count(i) == 5 for i in range(SHIFTS))
        assert all(a != b for a, b in zip(indices, indices[1:]))


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
