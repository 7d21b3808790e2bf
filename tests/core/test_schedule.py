"""Spans are found from the noise that is left, steps from timesteps; neither is counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core import NoiseLevels, Schedule, Span
from hidiffusion_ext.core.schedule import DISCRETE

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


@given(schedules, st.floats(0, 1), st.floats(-0.25, 0.25))
def test_a_call_is_inside_a_span_if_its_step_is_even_when_rounded(
    timesteps: list[int], share: float, error: float
) -> None:
    schedule, span = Schedule(timesteps), Span(0, share)
    inside = [schedule.inside(span, t + error) for t in timesteps]
    assert inside == [step in schedule.steps_inside(span) for step in range(len(timesteps))]


@pytest.mark.parametrize("timesteps", [[999, 700, 601, 400], [999, 601, 599, 0], [999, 998, 997]])
def test_a_span_ends_at_its_noise_however_the_steps_are_spaced(timesteps: list[float]) -> None:
    schedule = Schedule(timesteps)
    assert [t for t in timesteps if schedule.inside(Span(0, 0.4), t)] == [t for t in timesteps if t > 600]
    assert [t for t in timesteps if schedule.inside(Span(0.1, 0.4), t)] == [t for t in timesteps if 600 < t <= 900]


def test_second_order_and_restarting_samplers_are_judged_by_their_noise() -> None:
    schedule, span = Schedule([900, 700, 500, 300, 100]), Span(0, 0.4)
    assert [schedule.inside(span, t) for t in (900, 800, 700, 620, 500, 650, 500)] == [
        True, True, True, True, False, True, False
    ]  # fmt: skip


def test_spans_of_no_and_of_all_noise() -> None:
    schedule = Schedule([999, 500, 0])
    assert schedule.steps_inside(Span(0, 0)) == range(0)
    assert schedule.steps_inside(Span(0, 1)) == range(3)


def test_other_units_than_the_number_of_the_timestep() -> None:
    """A model whose UNet is given a quarter of the logarithm of sigma, as EDM's are."""
    sigmas = [((1 - a) / a) ** 0.5 for a in (math.cos(math.pi / 2 * (i + 1) / 1001) ** 2 for i in range(1000))]
    units = [0.25 * math.log(sigma) for sigma in sigmas]
    numbers = [999, 700, 601, 599, 400, 0]
    schedule = Schedule([units[number] for number in numbers], NoiseLevels(units, [1.0] * len(units)))
    assert schedule.steps_inside(Span(0, 0.4)) == range(3)
    assert schedule.steps_inside(Span(0.3, 0.4)) == range(1, 3)


@pytest.mark.parametrize(
    ("timesteps", "left_out"),
    [
        ([999, 749, 500, 250], 0),
        ([751, 501, 251, 1], 0),
        ([500, 400, 300, 200, 100], 4),
        ([300, 200], 6),
        ([300], 0),
        ([300] * 4, 0),
    ],
)
def test_how_much_of_a_whole_pass_is_left_out(timesteps: list[float], left_out: int) -> None:
    assert Schedule(timesteps).left_out == left_out


def test_a_noise_schedule_of_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        NoiseLevels([1.0], [1.0])


def test_what_is_left_is_told_in_shares_of_the_schedule_and_of_the_variance() -> None:
    assert DISCRETE.left(DISCRETE.after(0.4)) == pytest.approx(0.6)
    assert (DISCRETE.left(0), DISCRETE.left(-5), DISCRETE.left(2000)) == (0, 0, 0.999)
    assert DISCRETE.noise(999) == pytest.approx(1 - 0.0047, abs=1e-4)  # Stable Diffusion's last alpha
    assert DISCRETE.noise(0) == pytest.approx(0.00085)
    assert DISCRETE.noise(300.5) == pytest.approx((DISCRETE.noise(300) + DISCRETE.noise(301)) / 2)
    two = NoiseLevels([-1.5, 0.5], [1.0, 3.0])
    assert (two.left(-0.5), two.noise(-0.5)) == (0.25, pytest.approx((0.5 + 0.9) / 2))
