"""Distances between two sets of feature vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    error: float


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """FID's distance of two sets of features `[n, d]`, `[m, d]`.

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)), the means and covariances of the sets (Heusel et al. 2017, arXiv
    1706.08500, equation 6). Biased upwards for small sets: compare only values of equal n.
    """
    return gaussian_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def frechet_of_crops(a: np.ndarray, b: np.ndarray) -> Estimate:
    """FID's distance of two sets of pictures whose i-th entries belong to the same prompt, from vectors of their crops.

    The error is the jackknife's, one prompt left out at a time.

    Args:
        a, b: `[n, crops, d]`.
    """
    n, crops, _ = a.shape
    sums = [x.sum(1) for x in (a, b)]
    squares = [np.einsum("nci,ncj->nij", x, x) for x in (a, b)]

    def distance(left_out: int | None = None) -> float:
        vectors = (n if left_out is None else n - 1) * crops
        moments: list[np.ndarray] = []
        for total, square in zip(sums, squares):
            first = total.sum(0) - (0 if left_out is None else total[left_out])
            second = square.sum(0) - (0 if left_out is None else square[left_out])
            moments += [first / vectors, (second - np.outer(first, first) / vectors) / (vectors - 1)]
        return gaussian_distance(*moments)

    without = np.array([distance(index) for index in range(n)])
    return Estimate(distance(), float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())))


def gaussian_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Frechet (2-Wasserstein) distance of two normal distributions; means `[d]`, covariances `[d, d]`.

    The trace of (C1 C2)^(1/2) is that of (C1^(1/2) C2 C1^(1/2))^(1/2), which is symmetric.
    """
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(0)).sum()
    return float(((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> Estimate:
    """KID of two sets of features whose i-th entries belong to the same prompt.

    The squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018, arXiv 1801.01401,
    section 4) in its one-sample U-statistic (Gretton et al. 2012, lemma 6): pairs i, i are left out between the sets as
    they are within them, or sets that share their prompts would seem closer to each other than to themselves.
    Unbiased, so it can be below zero for equal distributions. The error is the jackknife's, one picture left out at a
    time (Efron and Stein 1981).

    Args:
        a, b: `[n, d]`, or `[n, crops, d]` where each picture has several vectors, which then stay together.
    """
    n, d = len(a), a.shape[-1]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values = (x.reshape(-1, d) @ y.reshape(-1, d).T / d + 1) ** 3
        return values.reshape(n, -1, n, len(y.reshape(-1, d)) // n).mean((1, 3))

    cross = kernel(a, b)
    pairs = kernel(a, a) + kernel(b, b) - cross - cross.T
    np.fill_diagonal(pairs, 0)
    total, own = pairs.sum(), pairs.sum(0)
    without = (total - 2 * own) / ((n - 1) * (n - 2))
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    return Estimate(float(total / (n * (n - 1))), float(error))
