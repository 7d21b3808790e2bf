"""The seam measure sees steps at window borders, there alone, and no objects."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.background import find_background
from benchmarks.quality.seams import Steps, border_lines, measure_steps

SIZES = [(256, 256), (192, 384)]


def flat(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A grey gradient with noise, uint8."""
    ramp = np.linspace(90, 150, width)[None, :, None] + np.zeros((height, width, 3))
    return (ramp + np.random.default_rng(seed).normal(0, 2, (height, width, 3))).astype(np.uint8)


def ratio(picture: np.ndarray) -> float:
    return measure_steps(picture, find_background(picture)).ratio


def test_border_lines_are_those_of_all_four_shifts() -> None:
    assert border_lines(32, 32) == {4, 8, 12, 16, 20, 24, 28}
    assert border_lines(24, 48) == {3, 6, 9, 12, 15, 18, 21}
    assert border_lines(64, 64) == set(range(8, 64, 8))


@pytest.mark.parametrize("size", SIZES)
def test_without_seams_the_ratio_is_one(size: tuple[int, int]) -> None:
    found = sum((measure_steps(p, find_background(p)) for p in (flat(*size, seed) for seed in range(4))), Steps())
    assert found.ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", SIZES)
def test_tinted_quadrants_are_seen(size: tuple[int, int]) -> None:
    picture = flat(*size)
    picture[: size[0] // 2, : size[1] // 2] += 6
    assert ratio(picture) > 1.4


def test_steps_between_borders_lower_the_ratio() -> None:
    picture = flat(256, 256)
    picture[: 8 * 14] += 6
    assert ratio(picture) < 0.95


def test_objects_do_not_count() -> None:
    picture = flat(256, 256)
    picture[64:192, 96:200] = (200, 30, 30)
    assert ratio(picture) == pytest.approx(1, abs=0.1)


def test_a_picture_that_is_all_object_has_no_ratio() -> None:
    picture = flat(128, 128)
    picture[4:-4, 4:-4] = (200, 30, 30)
    assert np.isnan(ratio(picture))
