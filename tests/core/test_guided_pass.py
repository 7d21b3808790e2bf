"""What changes guidance in a pass over a picture: split guidance and the anchor."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from plans import held, on_guidance
from unets import shared_unet

from hidiffusion_ext.core import (
    Change,
    Evaluation,
    LeftOut,
    Need,
    Options,
    Plan,
    Run,
    Schedule,
    Situation,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.anchor import Anchor
from hidiffusion_ext.core.parts.split_guidance import SplitGuidance, low_pass, split
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.core.sizes import FeatureSizes

UNET = map_unet(shared_unet())
SECOND = Situation(hires=True, over_picture=True)
PLAN = Plan(UNET, (16, 16), 64)
"""Of twice the native side."""


def split_by(run: Run, ratio: float) -> Change:
    return SplitGuidance(ratio).change(PLAN, run, torch.empty(0))


def anchored(run: Run, reference: torch.Tensor, strength: float) -> Change:
    return Anchor(strength).change(PLAN, run, reference)


def never() -> torch.Tensor:
    raise AssertionError("no further evaluation")


def evaluation(height: int = 12, width: int = 18) -> Evaluation:
    guided, uncond = torch.randn(2, 3, 4, height, width)
    return Evaluation(guided, uncond, never)


def run_at(timestep: float, first: float = 400) -> Run:
    run = Run(Schedule([first, 300, 200, 100, 10]))
    run.timesteps, run.sizes = [timestep], FeatureSizes((), ())
    return run


@pytest.mark.parametrize("enlargement", [1.0, 1.5, 2.0, 4.0])
def test_the_low_band_keeps_what_is_flat_and_the_mean(enlargement: float) -> None:
    flat = torch.randn(2, 4, 1, 1).expand(2, 4, 12, 18)
    torch.testing.assert_close(low_pass(flat, enlargement), flat)
    checks = (torch.arange(12)[:, None] + torch.arange(18)) % 2 * 2.0 - 1
    low = low_pass(checks[None, None], enlargement)
    assert bool(low.abs().max() < 1e-6) == (enlargement > 1)
    assert torch.equal(low_pass(checks[None, None], 1.0), checks[None, None])


def test_split_guidance_is_the_formula() -> None:
    uncond, cond = torch.randn(2, 3, 4, 12, 18).double()
    direction, scale, ratio = cond - uncond, 7.0, 2.5
    low = low_pass(direction, 2.0)
    expected = uncond + scale * low + ratio * scale * (direction - low)
    torch.testing.assert_close(split(uncond + scale * direction, uncond, 2.0, ratio), expected)


def test_the_ratio_falls_to_one_over_the_last_fifth_of_the_noise() -> None:
    one = evaluation()
    for timestep, ratio in [(400, 3.0), (200, 3.0), (100, 2.0), (0, 1.0)]:
        changed = split_by(run_at(timestep), 3.0)(one)
        torch.testing.assert_close(changed, split(one.guided, one.uncond, 2.0, ratio))


def test_each_picture_has_the_strength_of_its_own_noise() -> None:
    """The unconditional rows are a call's last, one for each picture."""
    one, reference = evaluation(), torch.randn(3, 4, 12, 18)
    run = run_at(400)
    for rows in ([400.0, 100.0, 50.0], [500.0, 500.0, 500.0, 400.0, 100.0, 50.0]):
        run.timesteps = rows
        for change in (split_by(run, 3.0), anchored(run, reference, 0.8)):
            changed = change(one)
            for row, timestep in enumerate((400.0, 100.0, 50.0)):
                run.timesteps = [timestep]
                torch.testing.assert_close(change(one)[row], changed[row])
            run.timesteps = rows


def test_neutral_strengths_change_no_bit() -> None:
    one = evaluation()
    assert torch.equal(split_by(run_at(300), 1.0)(one), one.guided)
    assert torch.equal(anchored(run_at(300), torch.randn_like(one.guided), 0.0)(one), one.guided)


def test_the_anchor_moves_the_low_band_alone_and_less_with_less_noise() -> None:
    one, reference = evaluation(), torch.randn(3, 4, 12, 18)
    for timestep in (400, 300, 100):
        gain = 0.8 * DISCRETE.noise(timestep) / DISCRETE.noise(400)
        moved = anchored(run_at(timestep), reference, 0.8)(one) - one.guided
        torch.testing.assert_close(moved, gain * (low_pass(reference, 2.0) - low_pass(one.guided, 2.0)))
    again = run_at(600)  # noise was put back (Restart): no more than the strength
    torch.testing.assert_close(anchored(again, reference, 1.0)(one), one.guided + low_pass(reference - one.guided, 2.0))


def test_an_evaluation_of_another_size_than_the_reference_is_left_alone() -> None:
    one = evaluation()
    for reference in (torch.randn(3, 4, 24, 18), torch.randn(1, 4, 12, 18)):
        assert torch.equal(anchored(run_at(300), reference, 1.0)(one), one.guided)


def test_only_a_pass_over_a_picture_gets_them() -> None:
    options = Options(split_guidance=2.0, anchor=0.5)
    first, second = (make_plan(options, UNET, (128, 128), situation) for situation in (Situation(), SECOND))
    assert (on_guidance(first), first.needing(Need.GUIDANCE)) == ((1.0, 0.0), [])
    assert (on_guidance(second), second.needing(Need.GUIDANCE)) == ((2.0, 0.5), [SplitGuidance(2.0), Anchor(0.5)])
    weak = Schedule([300, 200, 100])
    assert [part.name for part in second.parts if part.due(weak)] == [MSWMSA.name, SplitGuidance.name, Anchor.name]
    assert make_plan(options, UNET, (128, 256), SECOND).enlargement == pytest.approx(8**0.5)


def test_they_are_enough_to_do_and_can_be_all_there_is() -> None:
    options = Options(rau_net=False, msw_msa=False, anchor=1.0, faster_second_pass=FasterSecondPass.OFF)
    plan = make_plan(options, UNET, (128, 128), SECOND)
    assert plan.due(Schedule([300, 200]))
    assert plan.parts == (Anchor(1.0),)
    assert not make_plan(options, UNET, (128, 128)).active


def test_an_anchor_that_a_sampler_cannot_have_is_left_out_and_said() -> None:
    situation = Situation(hires=True, over_picture=True, conflicts=held(Need.CLEAN, reason="it cannot"))
    plan = make_plan(Options(anchor=1.0, split_guidance=2.0), UNET, (128, 128), situation)
    assert on_guidance(plan) == (2.0, 0.0)
    assert plan.left_out == (LeftOut(Anchor.name, "it cannot"),)
    assert not make_plan(Options(), UNET, (128, 128), situation).left_out
    unguided = dataclasses.replace(situation, conflicts=held(Need.GUIDANCE, reason="it cannot"))
    plan = make_plan(Options(split_guidance=2.0), UNET, (128, 128), unguided)
    assert not plan.needing(Need.GUIDANCE)
    assert plan.left_out == (LeftOut(SplitGuidance.name, "it cannot"),)
