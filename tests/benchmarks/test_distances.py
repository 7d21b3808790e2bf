"""FID and KID against what can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quality.distances import frechet_distance, gaussian_distance, kernel_distance


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


def test_kernel_distance_is_the_mean_over_pairs_of_different_prompts() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)) + 1

    def mean(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([(x[i] @ y[j] / 3 + 1) ** 3 for i in range(5) for j in range(5) if i != j]))

    assert kernel_distance(a, b) == pytest.approx(mean(a, a) + mean(b, b) - 2 * mean(a, b))
    assert kernel_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_is_unbiased_for_sets_with_the_same_prompts() -> None:
    rng = np.random.default_rng(4)
    prompts = 3 * rng.normal(size=(50, 4))
    same = [kernel_distance(*(prompts + rng.normal(size=(2, 50, 4)))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5


def test_kernel_distance_grows_with_the_difference() -> None:
    a, b = np.random.default_rng(5).normal(size=(2, 200, 4))
    assert kernel_distance(a, b) < kernel_distance(a, b + 0.5) < kernel_distance(a, b + 1)
