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
        ([799, 599, 399, 199], 1),
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


def test_the_ends_of_a_noise_schedule() -> None:
    assert (DISCRETE.most, DISCRETE.tolerance) == (999, 0.5)
    assert [DISCRETE.after(share) for share in (0, 1e-4, 0.001, 0.25, 0.9995, 1)] == pytest.approx(
        [math.inf, 999, 999, 750, 0.5, -math.inf]
    )
    quarters = NoiseLevels([-1.5, 0.5, 4.5], [1.0, 3.0, 9.0])
    assert (quarters.most, quarters.tolerance) == (4.5, 1.5)
    assert [quarters.after(share) for share in (0.1, 0.5, 0.9)] == pytest.approx([4.5, 2.5, -0.9])
    schedule = Schedule([999, 500, 0])  # calls with more noise than the model knows, and with less
    assert [schedule.inside(Span(0, 1), t) for t in (1e6, 999, 0, -20)] == [True] * 4
    assert [schedule.inside(Span(0, 0.5), t) for t in (1e6, 999.4, 500)] == [True, True, False]
    assert [schedule.inside(Span(0.5, 1), t) for t in (999, 500, 0, -20)] == [False, True, True, True]


def test_the_sigmas_of_stable_diffusion() -> None:
    """The least and the most are in every host's samplers; the others lie between."""
    assert [DISCRETE.sigma(t) for t in (0, 999)] == pytest.approx([0.02917, 14.6146], rel=1e-4)
    assert [DISCRETE.at_sigma(sigma) for sigma in (0.001, 0.02917, 14.6146, 100)] == pytest.approx(
        [0, 0, 999, 999], abs=0.01
    )


@given(st.floats(0, 999))
def test_the_timestep_of_a_sigma_is_where_it_is(timestep: float) -> None:
    assert DISCRETE.at_sigma(DISCRETE.sigma(timestep)) == pytest.approx(timestep, abs=1e-4)


def test_a_call_is_a_steps_own_to_half_a_level() -> None:
    """As hosts round: half precision, whole numbers."""
    schedule = Schedule([900, 700, 500])
    assert [schedule.has(t) for t in (900, 899.5, 700.5, 700.6, 699.4, 800, 499.5, 2000)] == [
        True, True, True, False, False, False, True, False,
    ]  # fmt: skip
    assert [schedule.begun(t) for t in (2000, 900, 700.6, 700.5, 699, 500.5, -1)] == [1, 1, 1, 2, 2, 3, 3]
    assert [schedule.step(t) for t in (801, 799, 601, 599)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("timesteps", "inside"),
    [
        # A step that lies on the end is over; what hosts make of it by rounding is the same.
        ([700, 600, 500], {700: True, 600.5: False, 600: False, 599.5: False}),
        ([700, 600.2, 500], {700: True, 600.6: True, 599.8: True, 500: False}),
        ([700, 601.4, 600, 500], {601.4: True, 600.6: True, 600.4: False, 600: False}),
        ([700, 550], {610: True, 590: False}),  # where there is no step, at its noise
        # Steps nearer to one another than hosts round: each to where it is nearer.
        ([700, 600.4, 599.9, 500], {600.4: True, 600.2: True, 600.1: False, 599.9: False}),
    ],
)
def test_an_end_keeps_clear_of_the_steps(timesteps: list[float], inside: dict[float, bool]) -> None:
    schedule = Schedule(timesteps)
    assert {t: schedule.inside(Span(0, 0.4), t) for t in inside} == inside


def test_steps_that_do_not_fall_are_still_in_the_order_of_their_noise() -> None:
    """As where a sampler adds noise before some of its steps alone."""
    schedule = Schedule([600, 640, 620, 500])
    assert [schedule.step(t) for t in (640, 625, 610, 500)] == [0, 1, 2, 3]
