"""What is told of a pass, before it and after it, from plain notes of what was done: no UNet is called."""

from __future__ import annotations

from collections.abc import Sequence, Set

import pytest
from plans import held, pairs
from unets import shared_unet, uniform_timesteps

from hidiffusion_ext.core import (
    Done,
    Family,
    Need,
    NoiseLevels,
    Options,
    Plan,
    Schedule,
    Situation,
    Span,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.parts.anchor import Anchor
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.part import LAYERS_NOT_CALLED, NOT_GUIDED
from hidiffusion_ext.core.parts.raunet import POOLED, STRIDED, RAUNet
from hidiffusion_ext.core.parts.redilation import DISPERSION, Redilation
from hidiffusion_ext.core.parts.relay import Relay
from hidiffusion_ext.core.parts.split_guidance import SplitGuidance
from hidiffusion_ext.core.parts.windows import MSWMSA, ODD
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.core.words import LESS_NOISE, SETTLED, describe

MAPS = {family: map_unet(shared_unet(family)) for family in Family}
SCHEDULE = Schedule(uniform_timesteps(5))
OPTIONS = [
    {},
    {"rau_net": False},
    {"msw_msa": False, "preset": "4x"},
    {"method": "ScaleCrafter", "preset": "2x"},
    {"method": "ScaleCrafter", "preset": "4x", "dispersion": True},
    {"split_guidance": 2.0, "anchor": 0.5},
    {"method": "Relay", "preset": "4x", "t1": 0.7, "t2": 0.3, "latent": (32, 32)},
]


def planned(
    family: Family = Family.SD1, latent: tuple[int, int] = (16, 24), unguided: Set[int] = frozenset(), **options: object
) -> Plan:
    asked = Options.from_mapping({"native_size": 64, "faster_second_pass": "Off", **options})
    situation = Situation(over_picture=True, unguided=frozenset(unguided))
    return make_plan(asked, MAPS[family], latent, situation)


def spans(plan: Plan) -> dict[str, Sequence[Span]]:
    """When everything that is noted of a plan is due."""
    strided, pooled = pairs(plan)
    found = {name: part.spans for part in plan.parts if part.name != RAUNet.name for name in part.names}
    return {**found, STRIDED: [strided.span], POOLED: [pooled.span]}


def as_planned(plan: Plan, schedule: Schedule, steps: int | None = None, without: Set[str] = frozenset()) -> Done:
    """What is noted in so many steps of a pass, but for some works."""
    done = Done()
    for timestep in schedule.timesteps[:steps]:
        done.note_call(timestep, planned=True)
        for work, due in spans(plan).items():
            if work not in without and any(schedule.inside(span, timestep) for span in due):
                done.note(work, timestep)
    return done


@pytest.mark.parametrize("begin", [0, 1, 3, 8])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", Family)
def test_what_went_as_planned_is_told_as_planned(family: Family, options: dict[str, object], begin: int) -> None:
    plan, schedule = planned(family, **options), Schedule(uniform_timesteps(10)[begin:])
    told, after = describe(plan, schedule), describe(plan, schedule, done=as_planned(plan, schedule))
    assert told == (after if plan.due(schedule) else f"nothing: {SETTLED}")
    assert ("until step" in told) == any(
        schedule.steps_inside(span) for part in plan.parts for span in part.spans if span != Span(0, 1)
    )


@pytest.mark.parametrize(
    ("family", "options", "shares", "steps"),
    [
        (Family.SD1, {}, "RAU-Net until 40%, MSW-MSA", "RAU-Net until step 20 of 50, MSW-MSA"),
        (
            Family.SDXL,
            {},
            "RAU-Net until 40% (stronger until 16%), MSW-MSA",
            "RAU-Net until step 20 of 50 (stronger until step 8), MSW-MSA",
        ),
        (
            Family.SD1,
            {"t1": 0.6, "t2": 0.3},
            "RAU-Net until 60% (stronger until 30%), MSW-MSA",
            "RAU-Net until step 30 of 50 (stronger until step 15), MSW-MSA",
        ),
        (Family.SD1, {"msw_msa": False, "t1": 0.3, "t2": 0.3}, "RAU-Net until 30%", "RAU-Net until step 15 of 50"),
        (Family.SD1, {"rau_net": False, "split_guidance": 2.5}, *["MSW-MSA, split guidance 2.5"] * 2),
        (Family.SD1, {"rau_net": False, "anchor": 1.0}, *["MSW-MSA, anchor 1"] * 2),
        (
            Family.SD1,
            {"method": "ScaleCrafter", "preset": "2x", "t1": 0.5, "msw_msa": False},
            "re-dilation until 50%",
            "re-dilation until step 25 of 50",
        ),
        (
            Family.SD1,
            {"method": "ScaleCrafter", "preset": "4x", "dispersion": True, "t1": 0.5},
            "re-dilation with dispersed convolution until 50%, noise-damped guidance until 50%, MSW-MSA",
            "re-dilation with dispersed convolution until step 25 of 50, noise-damped guidance until step 25 of 50, "
            "MSW-MSA",
        ),
        (
            Family.SD1,
            {"method": "Relay", "preset": "2x", "t1": 0.5},
            "relay at 72x48 until 50%, MSW-MSA",
            "relay at 72x48 until step 25 of 50, MSW-MSA",
        ),
        (
            Family.SD1,
            {"method": "Relay", "t1": 0.7, "t2": 0.5, "latent": (32, 32)},
            "relay at 64x64 until 50%, 128x128 until 70%, MSW-MSA in 4x4 windows",
            "relay at 64x64 until step 25, 128x128 until step 35 of 50, MSW-MSA in 4x4 windows",
        ),
    ],
)
def test_ends_are_told_in_shares_of_the_noise_or_in_steps(
    family: Family, options: dict[str, object], shares: str, steps: str
) -> None:
    plan, schedule = planned(family, **options), Schedule(uniform_timesteps(50))
    assert describe(plan) == shares.replace("%", "% of the noise")
    assert describe(plan, schedule) == steps
    assert describe(plan, schedule, about=True) == steps.replace("until step", "until about step")


@pytest.mark.parametrize("cut_short", [False, True])
@pytest.mark.parametrize(
    ("options", "without", "told", "why"),
    [
        (OPTIONS[0], {STRIDED}, "MSW-MSA", "no RAU-Net because " + LAYERS_NOT_CALLED),
        (OPTIONS[0], {MSWMSA.name}, "RAU-Net until step 2 of 5", "no MSW-MSA because " + MSWMSA.not_met),
        (OPTIONS[3], {Redilation.name}, "MSW-MSA", "no re-dilation because " + LAYERS_NOT_CALLED),
        (
            OPTIONS[4],
            {DampedGuidance.name, DISPERSION},
            "re-dilation until step 3 of 5, MSW-MSA",
            "no noise-damped guidance because " + NOT_GUIDED,
        ),
        (
            OPTIONS[5],
            {Anchor.name},
            "RAU-Net until step 2 of 5, MSW-MSA, split guidance 2",
            "no anchor because " + NOT_GUIDED,
        ),
        (
            OPTIONS[5],
            {SplitGuidance.name},
            "RAU-Net until step 2 of 5, MSW-MSA, anchor 0.5",
            "no split guidance because " + NOT_GUIDED,
        ),
        (OPTIONS[6], {Relay.name}, "MSW-MSA in 4x4 windows", "no relay because " + LAYERS_NOT_CALLED),
    ],
)
def test_what_was_not_done_is_told_with_the_reason_unless_it_may_have_been_to_come(
    options: dict[str, object], without: set[str], told: str, why: str, cut_short: bool
) -> None:
    plan = planned(**options)
    done = as_planned(plan, SCHEDULE, without=without)
    done.cut_short = cut_short
    assert describe(plan, SCHEDULE, done=done) == (told if cut_short else f"{told}, {why}")


def test_where_nothing_is_planned_the_reason_is_told() -> None:
    assert describe(planned(latent=(8, 8))) == "nothing to do at 64x64: the model was made for 64x64"
    assert describe(planned(latent=(8, 8)), SCHEDULE, done=Done()) == planned(latent=(8, 8)).reason
    assert describe(planned(rau_net=False, msw_msa=False)) == "nothing: everything it could do is switched off"
    assert describe(planned(passes="Hires")) == "nothing: this is a first pass, Passes is Hires"
    asked = Options.from_mapping({"native_size": 64, "passes": "First"})
    hires = make_plan(asked, MAPS[Family.SD1], (16, 24), Situation(hires=True))
    assert describe(hires) == "nothing: this is a hires pass, Passes is First"


def test_a_unet_that_was_never_called() -> None:
    told = ", ".join(f"no {name} because {LESS_NOISE}" for name in ("RAU-Net", "MSW-MSA"))
    assert describe(planned(), SCHEDULE, done=Done()) == told


def test_a_pair_that_begins_where_the_other_ends_is_told_by_itself() -> None:
    """SDXL's: without the aggressive start there is the pooled pair alone, and it follows the start where there is."""
    inpainting = map_unet(shared_unet(Family.SDXL, in_channels=9))
    alone = make_plan(Options(native_size=64), inpainting, (16, 16))
    assert describe(alone, Schedule([300, 200])) == f"MSW-MSA, no RAU-Net because {SETTLED}"
    after, schedule = planned(Family.SDXL), Schedule([650, 500, 300])
    assert describe(after, schedule) == "RAU-Net until step 1 of 3, MSW-MSA"
    done = as_planned(after, schedule, without={STRIDED, POOLED})
    assert describe(after, schedule, done=done) == f"MSW-MSA, no RAU-Net because {LAYERS_NOT_CALLED}"


def test_what_was_done_with_more_noise_than_the_schedule_has_is_told() -> None:
    """By a sampler that adds noise of its own before its calls, in a pass that begins just below the end of a part."""
    late, done = Schedule([599, 400, 200]), Done()
    for timestep in (690.0, 480.0, 240.0):
        done.note_call(timestep, planned=True)
        done.note(MSWMSA.name, timestep)
    assert describe(planned(), late, done=done) == f"MSW-MSA, no RAU-Net because {SETTLED}"
    done.note(STRIDED, 690.0)
    assert describe(planned(), late, done=done) == "RAU-Net until step 1 of 3, MSW-MSA"


def test_what_is_left_out_is_told_beside_what_is_settled() -> None:
    late = Schedule([300, 200, 100])
    alone = planned(msw_msa=False)
    assert describe(alone, late) == f"nothing: {SETTLED}"
    assert describe(alone, late, done=Done()) == f"no RAU-Net because {SETTLED}"
    conflicts = held(Need.TOKENS)
    options = Options.from_mapping({"native_size": 64, "faster_second_pass": "Off"})
    both = make_plan(options, MAPS[Family.SD1], (16, 24), Situation(over_picture=True, conflicts=conflicts))
    assert describe(both, late) == f"no MSW-MSA because of a reason, no RAU-Net because {SETTLED}"
    assert describe(both, SCHEDULE) == "RAU-Net until step 2 of 5, no MSW-MSA because of a reason"


def test_steps_that_are_not_guided_end_what_works_on_guidance() -> None:
    plan = planned(**OPTIONS[5], unguided={3, 4})
    assert describe(plan, SCHEDULE).endswith("split guidance 2 until step 3 of 5, anchor 0.5 until step 3 of 5")
    plan = planned(**OPTIONS[5], unguided={0, 1, 2, 3})
    assert describe(plan, SCHEDULE).endswith("MSW-MSA, split guidance 2, anchor 0.5")
    plan = planned(**OPTIONS[5], unguided=set(range(5)))
    assert describe(plan, SCHEDULE).endswith(
        f"MSW-MSA, no split guidance because {NOT_GUIDED}, no anchor because {NOT_GUIDED}"
    )
    plan = planned(**OPTIONS[4], unguided={1, 2})
    assert "noise-damped guidance until step 1 of 5" in describe(plan, SCHEDULE)
    plan = planned(**OPTIONS[4], unguided={0, 1, 2})
    assert describe(plan, SCHEDULE).endswith(f"MSW-MSA, no noise-damped guidance because {NOT_GUIDED}")


@pytest.mark.parametrize(("family", "strided", "odd"), [(Family.SD1, 0.4, False), (Family.SDXL, 0.4, True)])
def test_odd_feature_maps_are_told_where_windows_meet_them(family: Family, strided: float, odd: bool) -> None:
    """20 cells are halved to 10 and 5 on SDXL, whose windows are below the pair; SD's are above it."""
    plan = planned(family, (20, 24), t1=strided)
    assert ("MSW-MSA on resized odd feature maps" in describe(plan)) == odd
    assert ("on resized" in describe(plan, SCHEDULE)) == odd
    assert "on resized" not in describe(plan, Schedule([300, 200]))
    done = as_planned(plan, SCHEDULE)
    assert "on resized" not in describe(plan, SCHEDULE, done=done)
    done.note(ODD, 900.0)
    assert "MSW-MSA on resized odd feature maps" in describe(plan, SCHEDULE, done=done)


def test_notes_keep_the_least_noise_and_the_calls_of_the_planned_size() -> None:
    done = Done()
    assert done.met is None
    done.note_call(800.0, planned=False)
    assert (done.met, done.called) == (False, set())
    done.note_call(700.0, planned=True)
    done.note_call(600.0, planned=False)
    assert (done.met, done.called) == (True, {700.0})
    for timestep in (700.0, 650.0, 690.0):
        done.note(Relay.name, timestep)
    assert done.least == {Relay.name: 650.0}
    assert not done.ended_before_the_pass(Relay.name)
    done.note_call(640.0, planned=True)
    assert done.ended_before_the_pass(Relay.name)
    done.note(Relay.name, 640.0)
    assert not done.ended_before_the_pass(Relay.name)
    done.switched_off = True
    assert done.ended_before_the_pass(Relay.name)


def called(*timesteps: float, cut_short: bool = False) -> Done:
    done = Done()
    for timestep in timesteps:
        done.note_call(timestep, planned=True)
    done.cut_short = cut_short
    return done


def test_calls_that_keep_to_the_schedule_tell_steps_by_its_noise_others_by_their_number() -> None:
    schedule = Schedule([900, 700, 500, 300, 100])
    one_in_four, one_in_five = called(900, 650, 450, 250), called(900, 650, 450, 250, 50)
    assert [one_in_four.step(schedule, t) for t in (900, 650, 450, 250)] == [1, 2, 3, 4]
    # Five calls in five steps, one each, counted from the end.
    assert [one_in_five.step(schedule, t) for t in (900, 650, 450, 250, 50)] == [1, 2, 3, 4, 5]
    at_first = called(950, 950, 940, 820, 610)
    assert [at_first.step(schedule, t) for t in (950, 940, 820, 610)] == [2, 3, 4, 5]
    none = called(950, 940, 930, 820, 610)
    assert [none.step(schedule, t) for t in (950, 940, 930, 820, 610)] == [1, 2, 3, 4, 5]
    # More calls than steps: the noise tells.
    assert [called(950, 940, 820, 610, 410, 210).step(schedule, t) for t in (820, 210)] == [1, 4]
    # A pass that was ended: counted from the beginning.
    ended = called(950, 820, 610, cut_short=True)
    assert [ended.step(schedule, t) for t in (950, 820, 610, 400)] == [1, 2, 3, 4]


def test_a_pass_that_ended_before_anything_was_done_claims_nothing() -> None:
    done = Done()
    done.cut_short = True
    assert describe(planned(), SCHEDULE, done=done) == ""


@pytest.mark.parametrize("options", OPTIONS[:5] + OPTIONS[6:])
def test_a_unet_whose_layers_are_not_called_by_themselves(options: dict[str, object]) -> None:
    """As a graph that was made before: our hook on the whole is called, and no other."""
    plan, done = planned(**options), Done()
    for timestep in (900.0, 100.0):
        done.note_call(timestep, planned=True)
    told = describe(plan, SCHEDULE, done=done)
    assert told.startswith("no ")
    assert "until" not in told
    assert (LAYERS_NOT_CALLED in told) == options.get("rau_net", True)


def test_a_part_that_ends_before_the_pass_is_told_so() -> None:
    done = Done()
    for timestep in SCHEDULE.timesteps:
        done.note_call(timestep, planned=True)
        if timestep > 400:
            done.note(MSWMSA.name, timestep)
    assert describe(planned(), SCHEDULE, done=done).startswith("MSW-MSA until step 3 of 5, no RAU-Net")


def test_what_is_marked_comes_back() -> None:
    done = Done()
    done.note_call(900.0, planned=False)
    back = done.mark()
    done.note_call(800.0, planned=True)
    done.note(MSWMSA.name, 800.0)
    back()
    assert (done.least, done.met, done.called) == ({}, False, set())


def test_steps_that_have_begun() -> None:
    schedule = Schedule([900.0, 700.0, 500.0], NoiseLevels(range(1000), [1.0] * 1000))
    assert [schedule.begun(t) for t in (999, 900, 899.8, 701, 700.6, 700.4, 600, 500, 3)] == [1, 1, 1, 1, 1, 2, 2, 3, 3]


def test_samplers_that_add_noise_before_each_call() -> None:
    """Euler Dy and SMEA Dy: 2 ** 0.5 of the schedule's sigma, whatever they are asked for."""
    sigmas = [14.6 * (0.03 / 14.6) ** (step / 19) for step in range(20)]
    schedule, done = Schedule([DISCRETE.at_sigma(sigma) for sigma in sigmas]), Done()
    for step, sigma in enumerate(sigmas, 1):
        timestep = DISCRETE.at_sigma(sigma * 2**0.5)
        done.note_call(timestep, planned=True)
        if step <= 9:
            done.note(STRIDED, timestep)
    assert done.step(schedule, done.least[STRIDED]) == 9


def test_each_stage_of_a_relay_has_its_own_end() -> None:
    plan, done = planned(latent=(32, 32), method="Relay", t1=0.8, t2=0.5), Done()
    schedule = Schedule(uniform_timesteps(10))
    for timestep in schedule.timesteps:
        done.note_call(timestep, planned=True)
        done.note(MSWMSA.name, timestep)
        if schedule.inside(Span(0, 0.8), timestep):
            done.note(Relay.name, timestep)
    assert describe(plan, schedule, done=done) == describe(plan, schedule)
    assert describe(plan, schedule).startswith("relay at 64x64 until step 5, 128x128 until step 8 of 10")


@pytest.mark.parametrize("between", [0.5, 1 / 3])
def test_samplers_that_make_further_calls_within_a_step(between: float) -> None:
    """DPM2, DPM++ SDE, RES: one or two calls between a step's noise and the next one's."""
    done = Done()
    for here, there in zip(SCHEDULE.timesteps, [*SCHEDULE.timesteps[1:], 0.0]):
        share = 0.0
        while share < 0.99:
            done.note_call(here + share * (there - here), planned=True)
            share += between
    assert done.step(SCHEDULE, SCHEDULE.timesteps[2]) == 3
    assert done.step(SCHEDULE, SCHEDULE.timesteps[2] - 10) == 3


def test_a_model_whose_noise_is_another_than_thought() -> None:
    done = Done()
    done.note_call(1.1, planned=True)  # EDM's units
    done.note(MSWMSA.name, 1.1)
    assert describe(planned(), SCHEDULE, done=done) == f"MSW-MSA, no RAU-Net because {LESS_NOISE}"


def test_a_sampler_that_chooses_its_own_steps() -> None:
    """DPM adaptive calls far more often than the schedule has steps, and hardly ever with their noise."""
    schedule = Schedule(uniform_timesteps(10))
    done, ends = Done(), schedule.timesteps[4]
    for call in range(100):
        timestep = schedule.timesteps[0] * (1 - call / 100) - 0.37
        done.note_call(timestep, planned=True)
        if timestep >= ends:
            done.note(STRIDED, timestep)
    assert done.step(schedule, done.least[STRIDED]) == schedule.begun(done.least[STRIDED])


def test_the_end_of_what_was_done_is_told_without_any_call_of_the_planned_size() -> None:
    done = Done()
    done.note(Anchor.name, 500.0)
    assert not done.ended_before_the_pass(Anchor.name)


def test_what_failed_is_not_told_a_second_time_and_dispersion_by_its_own_end() -> None:
    plan = planned(**OPTIONS[4])
    done = as_planned(plan, SCHEDULE, without={DISPERSION, DampedGuidance.name})
    done.note(DISPERSION, SCHEDULE.timesteps[0])
    done.left_out = {DISPERSION, DampedGuidance.name}
    told = "re-dilation with dispersed convolution until step 1 and without it until step 3 of 5, MSW-MSA"
    assert describe(plan, SCHEDULE, done=done) == told
