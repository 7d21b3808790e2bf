"""UNets that are compiled, before a pass or during it: patched in the pass, and as before after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from job_host import Host
from torch import nn
from unets import inputs, tiny_unet, uniform_timesteps

from hidiffusion_ext.core import Family, Options, Run, Schedule, hidiffusion, make_plan, map_unet
from hidiffusion_ext.hosts import model as model_module
from hidiffusion_ext.hosts.compiled import eagerly, is_compiled
from modules import shared

LATENT = (16, 24)
UNET = tiny_unet(Family.SDXL)
TIMESTEP = uniform_timesteps(10)[0]


class Backend:
    """Runs what is compiled as it is written.

    Attributes:
        compiled, run: How many graphs were made, and how often one was run.
    """

    def __init__(self) -> None:
        self.compiled = self.run = 0

    def __call__(self, graph: Any, example_inputs: Any) -> Callable[..., Any]:
        self.compiled += 1

        def run(*args: Any) -> Any:
            self.run += 1
            return graph.forward(*args)

        return run


@pytest.fixture(autouse=True)
def clean(fresh_host: Host) -> Iterator[None]:
    """Nothing is compiled yet; the stand-in is there, as what it imports cannot be imported after the compiler."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def wrapped(unet: nn.Module, **settings: Any) -> Any:
    return torch.compile(unet, **settings)


def in_place(unet: nn.Module, **settings: Any) -> Any:
    """The attentions alone, as "regional" compilation does it."""
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.compile(**settings)
    return unet


@pytest.fixture(params=[wrapped, in_place])
def compiling(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    yield request.param
    for module in UNET.modules():
        module._compiled_call_impl = None


def called(unet: Any) -> torch.Tensor:
    x, context = inputs(LATENT)
    with torch.no_grad():
        return unet(x, torch.tensor([TIMESTEP]), context=context)


def patches(stack: ExitStack) -> None:
    stack.enter_context(eagerly())
    plan = make_plan(Options(native_size=64), map_unet(UNET), LATENT)
    stack.enter_context(hidiffusion(UNET, plan, Run(Schedule(uniform_timesteps(10)))))


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_in_a_pass_and_patched_again(compiling: Callable[..., Any], dynamic: bool) -> None:
    plain, backend = called(UNET), Backend()
    with ExitStack() as stack:
        patches(stack)
        patched = called(UNET)
        compiled = compiling(UNET, backend=backend, dynamic=dynamic)
        assert torch.equal(called(compiled), patched)
        assert backend.compiled == 0
    assert not torch.allclose(patched, plain, atol=1e-3)
    assert torch.allclose(called(compiled), plain, atol=1e-5)
    graphs, runs = backend.compiled, backend.run
    assert runs > 0
    with ExitStack() as stack:
        patches(stack)
        assert torch.equal(called(compiled), patched)
        assert backend.run == runs
    assert torch.allclose(called(compiled), plain, atol=1e-5)
    assert backend.run == 2 * runs
    assert backend.compiled == graphs


@pytest.mark.parametrize("kind", [in_place, pytest.param(wrapped, marks=pytest.mark.slow)])
def test_a_job_with_a_compiled_model(host: Host, kind: Callable[..., Any]) -> None:
    plain, _, _ = host.job()
    pictures, noted, _ = host.job({})
    owner = shared.sd_model.model
    unet, backend = owner.diffusion_model, Backend()
    owner.diffusion_model = kind(unet, backend=backend)
    try:
        host.job()
        assert backend.run > 0
        runs = backend.run
        assert host.job({})[:2] == (pictures, noted)
        assert backend.run == runs
        host.job()
        assert backend.run == 2 * runs
    finally:
        owner.diffusion_model = unet
        for module in unet.modules():
            module._compiled_call_impl = None
    assert host.job()[0] == plain


def test_what_cannot_be_paused_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_module, "CAN_PAUSE", False)
    assert "HiDiffusion refused" not in host.job({})[1]
    layer = shared.sd_model.model.diffusion_model.out[2]
    layer.compile(backend="eager")
    try:
        _, noted, _ = host.job({})
    finally:
        layer._compiled_call_impl = None
    assert list(noted) == ["HiDiffusion refused"]
    assert "compiled" in noted["HiDiffusion refused"]


def test_compiled_modules_are_seen() -> None:
    unet = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert not is_compiled(unet)
    unet[1].compile(backend="eager")
    assert is_compiled(unet)
    assert is_compiled(torch.compile(nn.Linear(2, 2), backend="eager"))  # type: ignore[arg-type]
