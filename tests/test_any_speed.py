"""A slow or busy machine fails no test by being slow."""

from __future__ import annotations

import time

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(max_examples=2)
@given(st.just(0.3))
def test_an_example_may_take_as_long_as_it_takes(seconds: float) -> None:
    time.sleep(seconds)


def test_so_may_making_one() -> None:
    assert HealthCheck.too_slow in settings.default.suppress_health_check
