"""Random failures at random places of a patched pass, and what is left of it: nothing."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack

import torch
from faults import PLACES, Fault, Interrupted, random_options
from leftovers import STEPS, UNETS, call
from snapshot import snapshot
from unets import uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Run,
    Schedule,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.words import describe

CASES = int(os.environ.get("FAULT_CASES", "150"))


ERRORS = [RuntimeError, torch.cuda.OutOfMemoryError, KeyboardInterrupt, Interrupted]


def test_random_failures_leave_nothing() -> None:
    choose = random.Random(20260101)
    states = {family: snapshot(unet) for family, unet in UNETS.items()}
    raised = {place.__name__: 0 for place in PLACES}
    for number in range(CASES):
        family = choose.choice(list(Family))
        unet, place = UNETS[family], choose.choice(PLACES)
        latent = choose.choice([(16, 16), (16, 24), (17, 21), (24, 16)])
        plan = make_plan(random_options(choose), map_unet(unet), latent)
        fault = Fault(choose.choice(ERRORS), choose.choice([1, 2, 3, 5, 8, 20, 60]))
        run = Run(Schedule(uniform_timesteps(STEPS)), torch.Generator().manual_seed(number))
        try:
            with ExitStack() as stack:
                place(fault, unet, stack, choose)
                with hidiffusion(unet, plan, run):
                    call(unet, latent, choose.randrange(STEPS))
        except fault.error:
            assert fault.raised, f"case {number}: {place.__name__} raised by itself"
        assert snapshot(unet) == states[family], f"case {number}: {place.__name__}, {describe(plan)}"
        raised[place.__name__] += fault.raised
    print(f"{CASES} cases, raised {raised}")
    assert all(count > CASES / 50 for count in raised.values()), raised
