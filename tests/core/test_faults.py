"""Random failures at random places of a patched pass, and what is left of it: nothing."""

from __future__ import annotations

import os
import random
from contextlib import ExitStack

import torch
from faults import PLACES, Fault, Interrupted, random_way
from plans import IN_A_PASS, PARTS
from snapshot import snapshot
from ways import SCHEDULE, UNETS, Pictures, evaluated

from hidiffusion_ext.core import Family, Run, hidiffusion, make_plan, map_unet

CASES = int(os.environ.get("FAULT_CASES", "120"))

ERRORS = [RuntimeError, torch.cuda.OutOfMemoryError, KeyboardInterrupt, Interrupted]


def test_random_failures_leave_nothing() -> None:
    """With every method in turn, in the UNet and in what is changed in guidance."""
    choose = random.Random(20260101)
    states = {family: snapshot(unet) for family, unet in UNETS.items()}
    raised, failed = {place.__name__: 0 for place in PLACES}, set[str]()
    for number in range(CASES):
        family = choose.choice(list(Family))
        unet, place, method = UNETS[family], choose.choice(PLACES), IN_A_PASS[number % len(IN_A_PASS)]
        options, situation = random_way(method, choose)
        latent = choose.choice([(16, 16), (16, 24), (17, 21), (24, 16)])
        plan = make_plan(options, map_unet(unet), latent, situation)
        fault = Fault(choose.choice(ERRORS), choose.choice([1, 2, 3, 5, 8, 20, 60]))
        run = Run(SCHEDULE, torch.Generator().manual_seed(number))
        pictures = Pictures(1, latent, seed=number)
        try:
            with torch.inference_mode(), ExitStack() as stack:
                place(fault, unet, stack, choose)
                with hidiffusion(unet, plan, run):
                    evaluated(unet, plan, run, pictures, [choose.choice(SCHEDULE.timesteps)])
        except fault.error:
            assert fault.raised, f"case {number}: {place.__name__} raised by itself"
        assert snapshot(unet) == states[family], f"case {number}: {place.__name__}, {plan.names}"
        raised[place.__name__] += fault.raised
        failed |= {part.name for part in plan.parts} if fault.raised else set()
    print(f"{CASES} cases, raised {raised}")
    assert all(count > CASES / 50 for count in raised.values()), raised
    assert failed == PARTS.keys()
