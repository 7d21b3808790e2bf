"""How often a pass waits for its device: what reads a number from it, or copies to or from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest
import torch
from plans import IN_A_PASS
from pretended_device import Pretended, PretendedDevice
from unets import inputs, tiny_unet

from hidiffusion_ext.core import (
    Evaluation,
    Method,
    Options,
    Plan,
    Preset,
    Run,
    Schedule,
    Situation,
    hidiffusion,
    make_plan,
    map_unet,
    resizing,
)
from hidiffusion_ext.core.parts import dispersion, relay, windows

UNET = tiny_unet()
for module in UNET.modules():
    for name, weight in module.named_parameters(recurse=False):
        module._parameters[name] = Pretended.of(weight.data)
LATENT = (18, 16)
TIMESTEPS = (999.0, 600.0, 150.0)


@pytest.fixture(scope="module", autouse=True)
def no_tables_of_the_pretended_device() -> Iterator[None]:
    """Tables outlive a pass, and would outlive the device."""
    yield
    for table in (dispersion._transform_on, relay._means, resizing._weights, windows._orders):
        table.cache_clear()


def test_the_device_counts_what_is_waited_for() -> None:
    with PretendedDevice() as device:
        x = device.put(torch.randn(3, 2))
        torch.full((2,), 1.0, device=x.device) + x
    assert not device.waits
    for wait in (float, lambda x: x.cpu(), lambda x: x.tolist(), lambda x: torch.zeros(1).to(x.device), bool):
        with PretendedDevice() as device:
            wait(device.put(torch.ones(1)))
        assert device.waits.total() == 1


@lru_cache
def own_waits() -> int:
    """How often the UNet itself waits in a call."""
    with torch.no_grad(), PretendedDevice() as device:
        x, text = (device.put(each) for each in inputs(LATENT, batch=2))
        UNET(x, device.put(torch.full((2,), 999.0)), context=text)
    return device.waits.total()


def waits(plan: Plan) -> tuple[int, int]:
    """How often a pass with guidance waits for the device beside the UNet itself, and how often it calls the UNet."""
    x, text = inputs(LATENT, batch=2)
    with torch.no_grad(), PretendedDevice() as device:
        given, text, calls = device.put(x), device.put(text), 0

        def call(timestep: float) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return UNET(given, device.put(torch.full((2,), timestep)), context=text)

        run = Run(Schedule(TIMESTEPS))
        changes = plan.changes(run, given)
        with hidiffusion(UNET, plan, run):
            for timestep in TIMESTEPS:
                uncond = call(timestep)
                for change in changes:
                    change(Evaluation(2 * uncond, uncond, lambda timestep=timestep: call(timestep)))
    return device.waits.total() - calls * own_waits(), calls


@pytest.mark.parametrize("over_picture", [False, True])
@pytest.mark.parametrize("method", IN_A_PASS)
def test_a_call_waits_for_the_device_once(method: Method, over_picture: bool) -> None:
    """Once its tables are there, which outlive a pass."""
    situation = Situation(over_picture=over_picture)
    options = Options(native_size=64, method=method, preset=Preset.X4, t1=0.5, t2=0.3, dispersion=True, anchor=0.5)
    plan = make_plan(options, map_unet(UNET), LATENT, situation)
    waits(plan)
    waited, calls = waits(plan)
    print(f"{method.value}: {waited} in {calls} calls")
    assert waited <= calls
