"""The counter counts: on drawn shapes, and on real emoji where the font is installed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.background import extended, find_background
from benchmarks.quality.objects import count_objects
from benchmarks.quality.preparing import count_case
from tools.train_demo_model.data import load_glyphs

SIZES = [(128, 128), (256, 256), (192, 384), (384, 128)]


def count(picture: np.ndarray) -> int:
    return count_objects(find_background(picture))


def gradient(height: int, width: int) -> np.ndarray:
    """A picture of nothing but a diagonal gradient from blue to sand, with a little noise."""
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    first, second = np.array([40, 60, 160]), np.array([200, 180, 120])
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    return np.clip(first + (x + y) / 2 * (second - first) + noise, 0, 255).astype(np.uint8)


def with_discs(picture: np.ndarray, centres: list[tuple[float, float]], radius: float) -> np.ndarray:
    """Red discs; centres as shares of (height, width), the radius as a share of the shorter side."""
    height, width, _ = picture.shape
    y, x = np.mgrid[:height, :width]
    out = picture.copy()
    for cy, cx in centres:
        out[(y - cy * height) ** 2 + (x - cx * width) ** 2 <= (radius * min(height, width)) ** 2] = (220, 30, 30)
    return out


@pytest.mark.parametrize("size", SIZES)
def test_a_gradient_alone_is_no_object(size: tuple[int, int]) -> None:
    assert count(gradient(*size)) == 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("centres", [[(0.5, 0.5)], [(0.25, 0.25), (0.75, 0.75)], [(0.2, 0.2), (0.8, 0.2), (0.5, 0.8)]])
def test_discs_are_counted_at_every_size(size: tuple[int, int], centres: list[tuple[float, float]]) -> None:
    assert count(with_discs(gradient(*size), centres, 0.18)) == len(centres)


def test_a_ring_is_one_object_and_crumbs_are_none() -> None:
    ring = with_discs(gradient(128, 128), [(0.5, 0.5)], 0.35)
    hole = with_discs(np.zeros_like(ring), [(0.5, 0.5)], 0.2).any(axis=2)
    ring[hole] = gradient(128, 128)[hole]
    assert count(ring) == 1
    assert count(with_discs(ring, [(0.05, 0.05), (0.95, 0.9)], 0.03)) == 1


def test_parts_close_together_are_one_object() -> None:
    assert count(with_discs(gradient(128, 128), [(0.5, 0.3), (0.5, 0.7)], 0.19)) == 1
    assert count(with_discs(gradient(128, 128), [(0.5, 0.25), (0.5, 0.75)], 0.19)) == 2


def test_an_object_over_half_of_the_border_is_not_the_background() -> None:
    picture = gradient(128, 128)
    picture[:, :40] = (220, 30, 30)
    assert count(picture) == 1


@pytest.mark.parametrize(("aspect", "size"), [(2, (256, 128)), (0.5, (128, 256)), (3, (384, 128))])
def test_a_picture_is_extended_by_its_own_background(aspect: float, size: tuple[int, int]) -> None:
    picture = with_discs(gradient(128, 128), [(0.5, 0.5)], 0.3)
    larger = extended(picture, aspect, 0.5)
    assert larger.shape[:2] == size
    assert count(larger) == 1
    top, left = (size[0] - 128) // 2, (size[1] - 128) // 2
    assert np.array_equal(larger[top : top + 128, left : left + 128], picture)


@pytest.mark.parametrize("side", [128, 256])
@pytest.mark.parametrize("objects", [1, 2, 4])
def test_real_emoji_are_counted_nearly_without_error(objects: int, side: int) -> None:
    case = count_case(load_glyphs(), objects, side, pictures=100)
    assert case["error_rate"] <= 1 / 20, case
