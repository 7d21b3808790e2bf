"""The numbers of Native first: a job of it takes no longer than its picture in one pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core.native_first import BETWEEN_PASSES, first_size, is_far, steps_in_time


@given(st.integers(1, 150), st.floats(0.01, 0.67), st.floats(0.3, 1.0), st.sampled_from([1, 2]))
def test_no_job_takes_longer_than_its_picture_in_one_pass(
    steps: int, first: float, second: float, evaluations: int
) -> None:
    for found in steps_in_time(steps, first, second, evaluations):
        assert steps * first + BETWEEN_PASSES / evaluations + found * second <= steps + 1e-9
        assert found >= min(6, steps / 2)


@pytest.mark.parametrize(
    ("steps", "guided", "unguided"),
    [
        (1, [], []),
        (2, [], []),
        (4, [2], []),
        (6, [4], [3]),
        (8, [6], [5]),
        (10, [6, 7], [6, 7]),
        (20, [6, 7], [6, 7]),
        (50, [15, 16], [15, 16]),
    ],
)
def test_few_steps_get_fewer_and_very_few_none(steps: int, guided: list[int], unguided: list[int]) -> None:
    assert list(steps_in_time(steps, first=0.2, second=0.85, evaluations=2)) == guided
    assert list(steps_in_time(steps, first=0.2, second=0.85, evaluations=1)) == unguided


def test_less_than_half_of_the_steps_are_too_few() -> None:
    assert list(steps_in_time(8, first=0.375, second=1.0, evaluations=2)) == [4]
    assert list(steps_in_time(8, first=0.45, second=1.0, evaluations=2)) == []


@pytest.mark.parametrize(
    ("width", "height", "native", "first"),
    [(1024, 1024, 512, (512, 512)), (2048, 2048, 1024, (1024, 1024)), (2048, 1024, 512, (720, 360))],
)
def test_the_first_picture_has_the_native_area_and_the_aspect(
    width: int, height: int, native: int, first: tuple[int, int]
) -> None:
    assert first_size(width, height, native) == first


def test_three_native_sides_are_far() -> None:
    assert is_far(1536, 1536, 512)
    assert not is_far(1528, 2048, 512)
