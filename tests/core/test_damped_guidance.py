"""Noise-damped guidance: the paper's formula, and equal to the official code's guided result at every step."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import redilations, span_of
from scalecrafter import (
    OFFICIAL,
    OFFICIAL_BASE,
    OFFICIAL_TAU,
    call_officially,
    first_steps,
    official_factors,
    official_steps,
    scalecrafter_plan,
)
from unets import inputs, shared_unet, uniform_timesteps

from hidiffusion_ext.core import Evaluation, Family, Plan, Run, Schedule, Span, hidiffusion, map_unet
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance, damp
from hidiffusion_ext.core.parts.redilation import Redilation
from hidiffusion_ext.core.sizes import FeatureSizes


@settings(max_examples=50)
@given(st.lists(st.floats(-8, 8), min_size=1, max_size=3), st.floats(1, 20))
def test_it_is_the_formula_for_any_conditions_and_weights(weights: list[float], scale: float) -> None:
    uncond, base, *conds = torch.randn(2 + len(weights), 2, 4, 2, 2).double()
    direction = scale * sum(weight * (cond - uncond) for weight, cond in zip(weights, conds))
    torch.testing.assert_close(damp(uncond + direction, uncond, base), base + direction)


def test_a_base_like_the_strong_evaluation_changes_no_bit() -> None:
    guided, uncond = torch.randn(2, 2, 4, 8, 8)
    assert torch.equal(damp(guided, uncond, uncond), guided)


def test_the_change_evaluates_once_more_in_the_steps_that_want_it() -> None:
    run = Run(Schedule([999.0]))
    guided, uncond, base = torch.randn(3, 2, 4, 8, 8)
    seen: list[bool] = []

    def again() -> torch.Tensor:
        seen.append(run.is_base)
        return base

    change = DampedGuidance(Span(0, 0.5)).change(Plan(map_unet(shared_unet()), (8, 8), 64), run, guided)
    run.sizes = FeatureSizes((), ())
    run.timesteps = [400.0]
    assert torch.equal(change(Evaluation(guided, uncond, again)), guided)
    run.timesteps = [600.0]
    assert torch.equal(change(Evaluation(guided, uncond, again)), damp(guided, uncond, base))
    assert seen == [True]


FIFTY = Schedule(uniform_timesteps(50))


@pytest.mark.parametrize("family", list(Family))
def test_every_step_equals_the_official_code(family: Family) -> None:
    depth = 2 if family is Family.SDXL else 1
    unet = shared_unet(family, depth=depth, deep=depth)
    theirs = copy.deepcopy(unet)
    steps, scale, tau = 10, 7.5, OFFICIAL_TAU[family, 4]
    strong, base = (
        official_steps(official_factors(theirs, table), steps, tau, progressive=True)
        for table in (OFFICIAL[family, 4], OFFICIAL_BASE[family])
    )
    plan = scalecrafter_plan(unet, (32, 32), native_size=64)
    assert FIFTY.steps_inside(span_of(plan, DampedGuidance)) == range(tau)
    timesteps = uniform_timesteps(steps)
    run = Run(Schedule(timesteps))
    with torch.inference_mode(), hidiffusion(unet, plan, run):
        for step in first_steps(strong):  # test_redilation has the others
            x, context = inputs((32, 32), seed=step, batch=2)
            x = x[:1].expand(2, -1, -1, -1)
            t = torch.full((2,), timesteps[step])
            rows = unet(x, t, context=context)
            assert run.has(DampedGuidance) is bool(strong[step])
            ours = rows[1] + scale * (rows[0] - rows[1])
            c, u = call_officially(theirs, strong[step], x, t, context=context)
            start = u
            if run.has(DampedGuidance):
                with run.base_evaluation():
                    again = unet(x[1:], t[1:], context=context[1:])
                ours = damp(ours, rows[1], again[0])
                (start,) = call_officially(theirs, base[step], x[1:], t[1:], context=context[1:])
                assert float((start - u).abs().max()) > 1e-4
            expected = start + scale * (c - u)
            assert float((ours - expected).abs().max()) <= 1e-4 * max(1.0, float(expected.std()))


def test_only_the_4x_tables_have_a_base() -> None:
    unet = shared_unet(Family.SD1)
    plan = scalecrafter_plan(unet, (32, 32))
    assert [FIFTY.steps_inside(span_of(plan, kind)) for kind in (Redilation, DampedGuidance)] == [range(35)] * 2
    assert {site.base for site in redilations(plan)} == {(1.0, 1.0), (3.0, 3.0), (4.0, 4.0)}
    off = scalecrafter_plan(unet, (32, 32), damped_guidance=False)
    assert off.part(DampedGuidance) is None
    assert {site.base for site in redilations(off)} == {(1.0, 1.0)}
    assert scalecrafter_plan(unet, (16, 16)).part(DampedGuidance) is None


def test_the_base_evaluation_ends_with_an_error_too() -> None:
    run = Run(Schedule([999.0]))
    with pytest.raises(RuntimeError), run.base_evaluation():
        raise RuntimeError
    assert not run.is_base


def test_guidance_is_not_damped_any_more_where_redilation_has_been_left_out() -> None:
    """As after a call that failed with it: the changes of a pass are made before, from the whole plan."""
    unet = shared_unet()
    plan = scalecrafter_plan(unet, (32, 32), msw_msa=True)
    x, context = inputs((32, 32))
    timesteps, again = uniform_timesteps(10), list[bool]()
    run = Run(Schedule(timesteps))
    (change,) = plan.changes(run, x)

    def once_more() -> torch.Tensor:
        again.append(True)
        return x

    least = plan.lesser(plan.parts)
    assert least
    for at_work, evaluations in ((plan, 1), (least, 1)):
        with torch.inference_mode(), hidiffusion(unet, at_work, run):
            unet(x, torch.tensor(timesteps[:1]), context=context)
            guided = change(Evaluation(x, x, once_more))
        assert len(again) == evaluations
    assert guided is x
