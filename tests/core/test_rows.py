"""A picture is its own: whatever else is in a call of the UNet, in whatever order, at whatever noise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import IN_A_PASS, NOTES
from ways import CASES, NATIVE, SCHEDULE, SIZES, UNETS, Pictures, error, evaluated, ways

from hidiffusion_ext.core import Method, Run, hidiffusion, make_plan, map_unet

ROUNDINGS = 1e-4
"""Kernels round differently for another number of rows."""

NEAR = 0.98
"""Of a step's noise: what others make of it for some rows to have more detail."""


@pytest.mark.parametrize("method", IN_A_PASS)
@settings(max_examples=CASES, deadline=None)
@given(st.data())
def test_a_row_goes_with_its_answer(method: Method, data: st.DataObject) -> None:
    """Rows of one step are what they are alone. Between steps what ends, ends for all rows with the noisiest."""
    unet = UNETS[data.draw(st.sampled_from(list(UNETS)))]
    options, situation = data.draw(st.sampled_from(ways(method)))
    size, step = data.draw(SIZES), data.draw(st.integers(0, SCHEDULE.steps - 1))
    begin, own = SCHEDULE.timesteps[0], SCHEDULE.timesteps[step]
    others = [timestep for timestep in SCHEDULE.timesteps if timestep != own]
    noise = [own, data.draw(st.sampled_from([NEAR * own, *others]))]
    plan, pictures = make_plan(options, map_unet(unet), size, situation), Pictures(2, size, seed=0)

    def answer(*rows: int) -> torch.Tensor:
        run = Run(SCHEDULE, torch.Generator().manual_seed(1))
        with torch.inference_mode(), hidiffusion(unet, plan, run):
            evaluated(unet, plan, run, pictures.taken(rows), [begin] * len(rows))
            return evaluated(unet, plan, run, pictures.taken(rows), [noise[row] for row in rows])

    together = answer(0, 1)
    assert error(answer(1, 0).flip(0), together) < ROUNDINGS
    if noise[1] not in others:
        assert error(answer(1), together[1:]) < ROUNDINGS


def test_everything_is_among_it_and_other_rows_would_show() -> None:
    unet, size, done = next(iter(UNETS.values())), (NATIVE // 4, NATIVE // 4 - 1), set[str]()
    pictures = Pictures(2, size, seed=0)
    for options, situation in (way for method in IN_A_PASS for way in ways(method)):
        run = Run(SCHEDULE, torch.Generator().manual_seed(1))
        plan = make_plan(options, map_unet(unet), size, situation)
        with torch.inference_mode(), hidiffusion(unet, plan, run):
            one, other = evaluated(unet, plan, run, pictures, [SCHEDULE.timesteps[0]] * 2)
        assert error(one, other) > 100 * ROUNDINGS
        done |= set(run.done.least)
    assert done == NOTES
