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
    Evaluation,
    Family,
    Method,
    Options,
    Plan,
    Run,
    Schedule,
    Situation,
    Span,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.anchor import Anchor
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.raunet import STRIDED
from hidiffusion_ext.core.parts.split_guidance import SplitGuidance
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.words import describe

STEPS = 5
LATENT = (16, 24)
OPTIONS = [
    Options(native_size=64),
    Options(native_size=64, rau_net=False),
    Options.from_mapping({"native_size": 64, "msw_msa": False, "preset": "4x"}),
    Options(native_size=64, method=Method.SCALECRAFTER),
    Options.from_mapping({"native_size": 64, "method": "ScaleCrafter", "preset": "4x", "dispersion": True}),
    Options(native_size=64, split_guidance=2.0, anchor=0.5),
    WHOLE := Options(native_size=64, faster_second_pass=FasterSecondPass.OFF),
]


def planned(family: Family, options: Options, latent: tuple[int, int] = LATENT) -> Plan:
    return make_plan(options, map_unet(UNETS[family]), latent, Situation(over_picture=True))


def sample(
    family: Family, plan: Plan, *, guided: bool = True, steps: int = STEPS, at: float = 0.0, between: float = 0.0
) -> Run:
    """A pass of the plan, with timesteps that lie so much above the schedule's, and further ones between them."""
    unet, run = UNETS[family], Run(Schedule(uniform_timesteps(STEPS)))
    x, context = inputs(plan.latent)
    changes = plan.changes(run, x)
    with torch.inference_mode(), hidiffusion(unet, plan, run):
        for timestep in uniform_timesteps(STEPS)[:steps]:

            def evaluate(timestep: float = timestep) -> torch.Tensor:
                return unet(x, torch.tensor([timestep + at]), context=context)

            result = evaluate()
            if between:
                evaluate(timestep + between)
            unguided = plan.leaving_unguided(run.schedule, timestep)
            for part in unguided:
                run.did(part.name)
            for change in changes if guided and not unguided else []:
                change(Evaluation(result, result, evaluate))
    return run


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    ("family", "at"),
    [
        *((family, 0.0) for family in Family),
        (Family.SD1, 0.25),
        (Family.SD1, -0.25),
    ],  # as A1111 rounds in half precision
)
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
def test_an_interrupted_pass_is_noted_as_far_as_it_went(steps: int) -> None:
    plan = planned(Family.SD1, Options(native_size=64, t1=0.6))
    run = sample(Family.SD1, plan, steps=steps)
    run.done.cut_short = True
    ended = {what: run.done.step(run.schedule, least) for what, least in run.done.least.items()}
    assert ended == {STRIDED: min(steps, 3), MSWMSA.name: steps}


@pytest.mark.parametrize(("number", "guided"), [(4, {DampedGuidance.name}), (5, {SplitGuidance.name, Anchor.name})])
def test_what_needs_guidance_is_not_claimed_without(number: int, guided: set[str]) -> None:
    plan = planned(Family.SD1, OPTIONS[number])
    with_it, without = (sample(Family.SD1, plan, guided=guidance).done.least.keys() for guidance in (True, False))
    assert with_it - without == guided
    assert without


def test_windows_that_are_never_cut_are_not_claimed() -> None:
    plan = planned(Family.SD1, WHOLE)
    with ExitStack() as stack:
        for name in (site.name for site in plan.part(MSWMSA).sites):

            def fewer(module: nn.Module, args: Any, kwargs: Any) -> Any:
                return args, {**kwargs, "context": args[0][:, ::2].clone()}

            hook = UNETS[Family.SD1].get_submodule(name).register_forward_pre_hook
            stack.callback(hook(fewer, with_kwargs=True, prepend=True).remove)
        run = sample(Family.SD1, plan)
    assert run.done.least.keys() == {STRIDED}


def test_guidance_of_calls_of_another_size_is_left_as_it_is() -> None:
    """As where another extension evaluates the picture in tiles."""
    plan = planned(Family.SD1, OPTIONS[5])
    unet, run = UNETS[Family.SD1], Run(Schedule(uniform_timesteps(STEPS)))
    x, context = inputs((8, 8))
    guided, uncond = torch.randn(2, 1, 4, *LATENT)
    damped = DampedGuidance(Span(0, 1)).change(plan, run, guided)
    changes = [*plan.changes(run, guided + 1), damped]
    assert len(changes) == 3
    with torch.inference_mode(), hidiffusion(unet, plan, run):
        unet(x, torch.tensor([801.0]), context=context)
        assert all(change(Evaluation(guided, uncond, lambda: uncond)) is guided for change in changes)
    assert run.done.least == {}
    assert describe(plan, run.schedule, done=run.done)
