"""The same weights in the official implementation (PyPI `hidiffusion`) give the same output at every step."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from parity import CASES, TOLERANCE, Case, largest_difference

SIZES = [(16, 24), (32, 16), (25, 19), (40, 56)]

CHANGES = [0, 7, 8, 14, 15, 19, 20, 24, 25, 34, 35, 49]
"""Of 50 steps those before and after any preset's T1, T2 and aggressive start."""


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize(
    ("latent", "steps"),
    [*((size, range(5)) for size in SIZES), ((16, 16), CHANGES)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else f"{value[-1] + 1}steps",
)
def test_every_step_equals_the_official_code(case: Case, latent: tuple[int, int], steps: Sequence[int]) -> None:
    assert largest_difference(case, latent, steps, steps[-1] + 1) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("latent", [(33, 41), (90, 160), (152, 104)])
@pytest.mark.parametrize("case", [CASES["SD1.5 2x"], CASES["SDXL 2x"]], ids=["SD1.5 2x", "SDXL 2x"])
def test_large_sizes_that_are_not_divisible_by_64(case: Case, latent: tuple[int, int]) -> None:
    assert largest_difference(case, latent, range(2), 3) <= TOLERANCE
