"""FID and KID against what can be computed by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.quality.distances import (
    Estimate,
    frechet_distance,
    frechet_of_crops,
    gaussian_distance,
    kernel_distance,
)


def test_commuting_covariances_have_a_closed_form() -> None:
    """Equal axes: the squared differences of the means and of the standard deviations add up."""
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    mean1, mean2 = np.array([1.0, 0, 2, 0]), np.array([0.0, 0, 0, 3])
    sigma1, sigma2 = np.array([1.0, 2, 3, 0]), np.array([2.0, 2, 1, 0.5])
    expected = ((mean1 - mean2) ** 2).sum() + ((sigma1 - sigma2) ** 2).sum()
    cov1, cov2 = ((axes * sigma**2) @ axes.T for sigma in (sigma1, sigma2))
    assert gaussian_distance(mean1, cov1, mean2, cov2) == pytest.approx(expected, abs=1e-6)


def test_rotated_covariances_agree_with_the_matrix_square_root() -> None:
    rng = np.random.default_rng(1)
    cov1, cov2 = (x @ x.T for x in rng.normal(size=(2, 5, 8)))
    values = np.linalg.eigvals(cov1 @ cov2)
    expected = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(values.real).sum()
    assert gaussian_distance(np.zeros(5), cov1, np.zeros(5), cov2) == pytest.approx(expected)


def test_frechet_distance_is_zero_for_itself_and_the_shift_of_a_shifted_set() -> None:
    a = np.random.default_rng(2).normal(size=(300, 6))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(6 * 4)


def test_frechet_distance_of_crops_is_that_of_all_of_them() -> None:
    a, b = np.random.default_rng(8).normal(size=(2, 30, 4, 6))
    assert frechet_of_crops(a, b).value == pytest.approx(frechet_distance(a.reshape(-1, 6), b.reshape(-1, 6)))
    assert frechet_of_crops(a, a) == pytest.approx((0, 0), abs=1e-9)


def test_kernel_distance_is_the_mean_over_pairs_of_different_prompts() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)) + 1

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([(x[i] @ y[j] / 3 + 1) ** 3 for i in range(5) for j in range(5) if i != j]))

    assert kernel_distance(a, b).value == pytest.approx(mean(a, a) + mean(b, b) - 2 * mean(a, b))
    assert kernel_distance(a, a) == pytest.approx((0, 0), abs=1e-9)


def test_kernel_distance_is_unbiased_for_sets_with_the_same_prompts() -> None:
    rng = np.random.default_rng(4)
    prompts = 3 * rng.normal(size=(50, 4))
    same = [kernel_distance(*(prompts + rng.normal(size=(2, 50, 4)))).value for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5


@pytest.mark.parametrize("distance", [kernel_distance, frechet_of_crops])
def test_the_standard_error_is_that_of_repeated_draws(distance: Callable[[np.ndarray, np.ndarray], Estimate]) -> None:
    rng = np.random.default_rng(6)
    drawn = [distance(rng.normal(size=(60, 1, 4)), rng.normal(size=(60, 1, 4)) + 0.5) for _ in range(300)]
    spread = np.std([estimate.value for estimate in drawn])
    assert np.mean([estimate.error for estimate in drawn]) == pytest.approx(spread, rel=0.2)


def test_vectors_of_one_picture_stay_together() -> None:
    """Pairs within a picture are left out, those between pictures averaged: the same as of any one crop repeated."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(2, 20, 4))
    repeated = [np.repeat(x[:, None], 3, axis=1) for x in (a, b)]
    assert kernel_distance(*repeated) == pytest.approx(kernel_distance(a, b))


def test_kernel_distance_grows_with_the_difference() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 200, 4))
    values = [kernel_distance(a, b + shift).value for shift in (0, 0.5, 1)]
    assert values == sorted(values)
