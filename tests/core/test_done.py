"""What is said after a pass comes from what was done in it; where all went as planned it is what was said before."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from leftovers import UNETS
from torch import nn
from unets import inputs, uniform_timesteps

from hidiffusion_ext.core import (
    Done,
    Evaluation,
    Family,
    Method,
    NoiseLevels,
    Options,
    Plan,
    Run,
    Schedule,
    Situation,
    Span,
    Work,
    anchored,
    damped,
    hidiffusion,
    make_plan,
    map_unet,
    split_guidance,
)
from hidiffusion_ext.core.plan import Technique
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.core.words import LAYERS_NOT_CALLED, LESS_NOISE, NOT_GUIDED, NOT_MET, describe

STEPS = 5
LATENT = (16, 24)
OPTIONS = [
    Options(native_size=64),
    Options(native_size=64, rau_net=False),
    Options.from_mapping({"native_size": 64, "msw_msa": False, "preset": "4x"}),
    Options(native_size=64, method=Method.SCALECRAFTER),
    Options.from_mapping({"native_size": 64, "method": "ScaleCrafter", "preset": "4x", "dispersion": True}),
    Options(native_size=64, split_guidance=2.0, anchor=0.5),
]


def planned(family: Family, options: Options, latent: tuple[int, int] = LATENT) -> Plan:
    return make_plan(options, map_unet(UNETS[family]), latent, Situation(over_picture=True))


def sample(
    family: Family, plan: Plan, *, guided: bool = True, steps: int = STEPS, at: float = 0.0, between: float = 0.0
) -> Run:
    """A pass of the plan, with timesteps that lie so much above the schedule's, and further ones between them."""
    unet, run = UNETS[family], Run(Schedule(uniform_timesteps(STEPS)))
    x, context = inputs(plan.latent)
    changes = [damped(run)] if plan.damped.end else []
    changes += [split_guidance(run, 2.0, plan.split_guidance)] if plan.split_guidance != 1 else []
    changes += [anchored(run, x, 2.0, plan.anchor)] if plan.anchor else []
    with torch.inference_mode(), hidiffusion(unet, plan, run):
        for timestep in uniform_timesteps(STEPS)[:steps]:

            def evaluate(timestep: float = timestep) -> torch.Tensor:
                return unet(x, torch.tensor([timestep + at]), context=context)

            result = evaluate()
            if between:
                evaluate(timestep + between)
            for change in changes if guided else []:
                change(Evaluation(result, result, evaluate))
    return run


@pytest.mark.parametrize("at", [0.0, 0.25, -0.25])  # as A1111 rounds in half precision
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("family", list(Family))
def test_a_pass_as_planned_is_told_as_planned(family: Family, options: Options, at: float) -> None:
    plan = planned(family, options)
    run = sample(family, plan, at=at)
    assert describe(plan, run.schedule, done=run.done) == describe(plan, run.schedule)


@pytest.mark.parametrize("t1", [0.3, 0.4, 0.59])
def test_calls_between_the_steps_of_the_schedule_belong_to_the_one_before(t1: float) -> None:
    """As samplers of second order make them."""
    plan = planned(Family.SD1, Options(native_size=64, t1=t1))
    run = sample(Family.SD1, plan, between=-100.0)
    assert describe(plan, run.schedule, done=run.done) == describe(plan, run.schedule)


def test_odd_windows_are_told_if_there_were_any() -> None:
    plan = planned(Family.SDXL, OPTIONS[0], (20, 24))
    run = sample(Family.SDXL, plan)
    assert "odd" in describe(plan, run.schedule)
    assert describe(plan, run.schedule, done=run.done) == describe(plan, run.schedule)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_an_interrupted_pass_is_told_as_far_as_it_went(steps: int) -> None:
    plan = planned(Family.SD1, Options(native_size=64, t1=0.6))
    run = sample(Family.SD1, plan, steps=steps)
    run.done.cut_short = True
    assert describe(plan, run.schedule, done=run.done) == f"RAU-Net until step {min(steps, 3)} of 5, MSW-MSA"


def test_a_pass_that_ended_before_anything_was_done_claims_nothing() -> None:
    plan, run = planned(Family.SD1, OPTIONS[0]), Run(Schedule(uniform_timesteps(STEPS)))
    run.done.cut_short = True
    assert describe(plan, run.schedule, done=run.done) == ""


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (4, "re-dilation with dispersed convolution until step 3 of 5, MSW-MSA, no noise-damped guidance because "),
        (5, f"RAU-Net until step 2 of 5, MSW-MSA, no split guidance because {NOT_GUIDED}, no anchor because "),
    ],
)
def test_what_needs_guidance_is_not_claimed_without(number: int, told: str) -> None:
    plan = planned(Family.SD1, OPTIONS[number])
    run = sample(Family.SD1, plan, guided=False)
    assert describe(plan, run.schedule, done=run.done) == told + NOT_GUIDED


def test_windows_that_are_never_cut_are_not_claimed() -> None:
    plan = planned(Family.SD1, OPTIONS[0])
    with ExitStack() as stack:
        for name in (site.attention for site in plan.windows):

            def fewer(module: nn.Module, args: Any, kwargs: Any) -> Any:
                return args, {**kwargs, "context": args[0][:, ::2].clone()}

            hook = UNETS[Family.SD1].get_submodule(name).register_forward_pre_hook
            stack.callback(hook(fewer, with_kwargs=True, prepend=True).remove)
        run = sample(Family.SD1, plan)
    told = describe(plan, run.schedule, done=run.done)
    assert told == f"RAU-Net until step 2 of 5, no MSW-MSA because {NOT_MET[Technique.MSW_MSA]}"


@pytest.mark.parametrize("options", OPTIONS[:5])
def test_a_unet_whose_layers_are_not_called_by_themselves(options: Options) -> None:
    """As a graph that was made before: our hook on the whole is called, and no other."""
    plan = planned(Family.SD1, options)
    run = Run(Schedule(uniform_timesteps(STEPS)))
    run.done.note_call(900.0, planned=True)
    told = describe(plan, run.schedule, done=run.done)
    assert told.startswith("no ")
    assert "until" not in told
    assert (LAYERS_NOT_CALLED in told) == (options.rau_net or options.method is Method.SCALECRAFTER)


def test_a_part_that_ends_before_the_pass_is_told_so() -> None:
    plan, done = planned(Family.SD1, OPTIONS[0]), Done()
    schedule = Schedule(uniform_timesteps(STEPS))
    for timestep in schedule.timesteps:
        done.note_call(timestep, planned=True)
        if timestep > 400:
            done.note(Work.WINDOWS, timestep)
    assert describe(plan, schedule, done=done).startswith("MSW-MSA until step 3 of 5, no RAU-Net")


def test_what_is_marked_comes_back() -> None:
    done = Done()
    done.note_call(900.0, planned=False)
    back = done.mark()
    done.note_call(800.0, planned=True)
    done.note(Work.WINDOWS, 800.0)
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
            done.note(Work.STRIDED, timestep)
    assert done.step(schedule, done.least[Work.STRIDED]) == 9


def test_each_stage_of_a_relay_has_its_own_end() -> None:
    options = Options(native_size=64, method=Method.RELAY, t1=0.8, t2=0.5)
    plan, done = make_plan(options, map_unet(UNETS[Family.SD1]), (32, 32)), Done()
    schedule = Schedule(uniform_timesteps(10))
    for timestep in schedule.timesteps:
        done.note_call(timestep, planned=True)
        done.note(Work.WINDOWS, timestep)
        if schedule.inside(Span(0, 0.8), timestep):
            done.note(Work.RELAY, timestep)
    assert describe(plan, schedule, done=done) == describe(plan, schedule)
    assert describe(plan, schedule).startswith("relay at 64x64 until step 5, 128x128 until step 8 of 10")


@pytest.mark.parametrize("between", [0.5, 1 / 3])
def test_samplers_that_make_further_calls_within_a_step(between: float) -> None:
    """DPM2, DPM++ SDE, RES: one or two calls between a step's noise and the next one's."""
    schedule, done = Schedule(uniform_timesteps(STEPS)), Done()
    for here, there in zip(schedule.timesteps, [*schedule.timesteps[1:], 0.0]):
        share = 0.0
        while share < 0.99:
            done.note_call(here + share * (there - here), planned=True)
            share += between
    assert done.step(schedule, schedule.timesteps[2]) == 3
    assert done.step(schedule, schedule.timesteps[2] - 10) == 3


def test_a_model_whose_noise_is_another_than_thought() -> None:
    plan, run = planned(Family.SD1, OPTIONS[0]), Run(Schedule(uniform_timesteps(STEPS)))
    run.done.note_call(1.1, planned=True)  # EDM's units
    run.done.note(Work.WINDOWS, 1.1)
    assert describe(plan, run.schedule, done=run.done) == f"MSW-MSA, no RAU-Net because {LESS_NOISE}"


def test_a_sampler_that_chooses_its_own_steps() -> None:
    """DPM adaptive calls far more often than the schedule has steps, and hardly ever with their noise."""
    schedule = Schedule(uniform_timesteps(10))
    done, ends = Done(), schedule.timesteps[4]
    for call in range(100):
        timestep = schedule.timesteps[0] * (1 - call / 100) - 0.37
        done.note_call(timestep, planned=True)
        if timestep >= ends:
            done.note(Work.STRIDED, timestep)
    assert done.step(schedule, done.least[Work.STRIDED]) == schedule.begun(done.least[Work.STRIDED])


def test_guidance_of_calls_of_another_size_is_left_as_it_is() -> None:
    """As where another extension evaluates the picture in tiles."""
    plan = planned(Family.SD1, OPTIONS[5])
    unet, run = UNETS[Family.SD1], Run(Schedule(uniform_timesteps(STEPS)))
    x, context = inputs((8, 8))
    guided, uncond = torch.randn(2, 1, 4, *LATENT)
    changes = [split_guidance(run, 2.0, 2.0), anchored(run, guided + 1, 2.0, 0.5), damped(run)]
    with torch.inference_mode(), hidiffusion(unet, plan, run):
        unet(x, torch.tensor([801.0]), context=context)
        assert all(change(Evaluation(guided, uncond, lambda: uncond)) is guided for change in changes)
    assert run.done.least == {}
    assert describe(plan, run.schedule, done=run.done)


def test_the_end_of_what_was_done_is_told_without_any_call_of_the_planned_size() -> None:
    done = Done()
    done.note(Work.ANCHOR, 500.0)
    assert not done.ended_before_the_pass(Work.ANCHOR)


def test_what_failed_is_not_told_a_second_time_and_dispersion_by_its_own_end() -> None:
    plan, schedule = planned(Family.SD1, OPTIONS[4]), Schedule(uniform_timesteps(STEPS))
    done = Done()
    for timestep in schedule.timesteps:
        done.note_call(timestep, planned=True)
        if schedule.inside(plan.redilations[0].span, timestep):
            done.note(Work.REDILATED, timestep)
    done.note(Work.DISPERSED, schedule.timesteps[0])
    done.note(Work.WINDOWS, schedule.timesteps[-1])
    done.left_out = {Technique.DISPERSION, Technique.DAMPED_GUIDANCE}
    told = "re-dilation with dispersed convolution until step 1 and without it until step 3 of 5, MSW-MSA"
    assert describe(plan, schedule, done=done) == told
