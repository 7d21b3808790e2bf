"""Steps are found from timesteps, not counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core import Schedule

schedules = st.lists(st.integers(0, 999), min_size=1, max_size=60, unique=True).map(lambda ts: sorted(ts, reverse=True))


@given(schedules, st.floats(-0.25, 0.25))
def test_every_entry_is_its_own_step_even_when_rounded(timesteps: list[int], error: float) -> None:
    schedule = Schedule(timesteps)
    assert [schedule.step(t + error) for t in timesteps] == list(range(len(timesteps)))


@given(schedules, st.floats(0, 999), st.floats(0, 999))
def test_less_noise_is_never_an_earlier_step(timesteps: list[int], a: float, b: float) -> None:
    schedule = Schedule(timesteps)
    assert schedule.step(max(a, b)) <= schedule.step(min(a, b))


def test_levels_outside_the_schedule_belong_to_its_ends() -> None:
    schedule = Schedule([600, 400, 200])
    assert (schedule.step(999), schedule.step(0)) == (0, 2)


def test_second_order_and_restarting_samplers_do_not_shift_it() -> None:
    schedule = Schedule([900, 700, 500, 300, 100])
    heun = [900, 700, 700, 500, 500, 300, 300, 100, 100]
    assert [schedule.step(t) for t in heun] == [0, 1, 1, 2, 2, 3, 3, 4, 4]
    restart = [900, 700, 500, 700, 500, 300]
    assert [schedule.step(t) for t in restart] == [0, 1, 2, 1, 2, 3]


def test_a_schedule_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Schedule([])
