"""Random failures at random places of a patched pass: the picture is made all the same, without us from there on.

FALLBACK_CASES=10000 makes it that many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import pytest
import torch
from faults import PLACES, Fault, Interrupted, random_options
from leftovers import UNETS, snapshot
from torch import nn
from unets import inputs, uniform_timesteps

from hidiffusion_ext.core import (
    Evaluation,
    Family,
    Run,
    Schedule,
    WindowShift,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core import windows as windows_module
from hidiffusion_ext.core.words import describe
from hidiffusion_ext.hosts.fallback import falling_back, is_out_of_memory

CASES = int(os.environ.get("FALLBACK_CASES", "300"))
STEPS = 3
SETTINGS_TRIED = 8


class OutOfMemory(RuntimeError):
    """As the CPU and MPS say it."""

    def __init__(self) -> None:
        super().__init__("DefaultCPUAllocator: can't allocate memory")


OURS = [RuntimeError, ValueError, KeyError, AssertionError, RecursionError]
THE_HOSTS = [torch.cuda.OutOfMemoryError, OutOfMemory, MemoryError, KeyboardInterrupt, Interrupted]


def in_the_windows(fault: Fault, unet: nn.Module, stack: ExitStack, choose: random.Random) -> None:
    """In a function of ours."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    original = windows_module.window_partition

    def faulty(*args: Any) -> torch.Tensor:
        fault()
        return original(*args)

    patch.setattr(windows_module, "window_partition", faulty)


IN_CALLS = [place for place in PLACES if place.__name__ not in ("while_patching", "while_restoring")]


class Model:
    """Evaluates a UNet as a host's model does, takes residuals from a list as the Forge family does, and draws random
    numbers as reference modes do.

    Attributes:
        calls: How many evaluations were made to their end.
    """

    def __init__(self, unet: nn.Module, context: torch.Tensor) -> None:
        self.unet, self.context, self.calls = unet, context, 0

    def apply_model(self, x: torch.Tensor, t: torch.Tensor, control: dict[str, list[float]]) -> torch.Tensor:
        added = control["input"].pop() + 0.01 * torch.randn_like(x)
        result = self.unet(x, t, context=self.context) + added
        self.calls += 1
        return result


class Case:
    """A plan, and the results of a call at each step of its pass, patched and not."""

    def __init__(self, number: int, choose: random.Random) -> None:
        self.family = choose.choice(list(Family))
        self.unet = UNETS[self.family]
        self.latent = choose.choice([(16, 16), (16, 24), (17, 21)])
        self.plan = make_plan(random_options(choose), map_unet(self.unet), self.latent)
        self.x, context = inputs(self.latent)
        self.model = Model(self.unet, context)
        self.seed = number
        with torch.inference_mode():
            self.plain = [self.call(step) for step in range(STEPS)]
            with self.patches(self.new_run()):
                self.patched = [self.call(step) for step in range(STEPS)]

    def new_run(self) -> Run:
        return Run(Schedule(uniform_timesteps(STEPS)), torch.Generator().manual_seed(self.seed))

    def patches(self, run: Run) -> AbstractContextManager[None]:
        return hidiffusion(self.unet, self.plan, run)

    def call(self, step: int) -> torch.Tensor:
        torch.manual_seed(self.seed)
        t = torch.tensor([uniform_timesteps(STEPS)[step]])
        return self.model.apply_model(self.x, t, control={"input": [0.5, 0.25]})


def test_random_failures_lose_no_picture() -> None:
    choose = random.Random(20261126)
    states = {family: snapshot(unet) for family, unet in UNETS.items()}
    cases = [Case(number, choose) for number in range(SETTINGS_TRIED)]
    ended = {"unharmed": 0, "without us": 0, "by the host": 0}
    for number in range(CASES):
        case, step = choose.choice(cases), choose.randrange(STEPS)
        fault = Fault(choose.choice(OURS * 3 + THE_HOSTS), choose.choice([1, 2, 3, 5, 8, 20, 60, 120]))
        said: list[tuple[str, str]] = []
        run = case.new_run()
        case.model.calls = 0
        with torch.inference_mode(), ExitStack() as stack, ExitStack() as faults:
            fallback = stack.enter_context(falling_back(case.model, run, lambda *what: said.append(what)))  # noqa: B023
            fallback.enter(case.patches(run))
            choose.choice([*IN_CALLS, in_the_windows])(fault, case.unet, faults, choose)
            try:
                result = case.call(step)
            except fault.error:
                assert fault.raised
                assert fault.error in THE_HOSTS
                ended["by the host"] += 1
            else:
                faults.close()
                assert case.model.calls == 1
                if fault.raised:
                    assert fault.error in OURS
                    ((what, trace),) = said
                    assert what.startswith(fault.error.__name__)
                    assert trace.startswith("Traceback")
                    assert "in __call__" in trace
                    assert torch.equal(result, case.plain[step]), (number, describe(case.plan))
                    assert snapshot(case.unet) == states[case.family]  # while the pass goes on
                    ended["without us"] += 1
                else:
                    assert case.plan.window_shift is WindowShift.RANDOM or torch.equal(result, case.patched[step])
                    ended["unharmed"] += 1
        assert vars(case.model).keys() == {"unet", "context", "calls"}
        assert snapshot(case.unet) == states[case.family], number
    print(f"{CASES} cases ended {ended}")
    assert all(count > CASES / 20 for count in ended.values()), ended


def attempts(fail: Callable[[int], None]) -> tuple[Model, Run, list[Any], Callable[[], torch.Tensor]]:
    """A model that fails as asked, by the number of the attempt; its run; what is said; one patched evaluation."""
    x, context = inputs((16, 16))
    unet = UNETS[Family.SD1]
    model, said = Model(unet, context), []
    plan = make_plan(random_options(random.Random(1)), map_unet(unet), (16, 16))
    run, attempt = Run(Schedule(uniform_timesteps(STEPS)), torch.Generator()), 0

    def faulty(*_: Any) -> None:
        nonlocal attempt
        attempt += 1
        fail(attempt)

    def evaluate() -> torch.Tensor:
        handle = unet.register_forward_hook(faulty)
        try:
            with torch.inference_mode(), falling_back(model, run, lambda *what: said.append(what)) as fallback:
                fallback.enter(hidiffusion(unet, plan, run))
                return model.apply_model(x, torch.tensor([900.0]), control={"input": [0.0]})
        finally:
            handle.remove()

    return model, run, said, evaluate


def test_a_failure_of_the_hosts_own_is_the_hosts() -> None:
    def fail(attempt: int) -> None:
        raise ValueError("ours, perhaps") if attempt == 1 else KeyError("the host's")

    _, run, said, evaluate = attempts(fail)
    with pytest.raises(KeyError) as caught:
        evaluate()
    assert caught.value.__context__ is None
    assert said == []
    assert not run.done.least


def test_what_the_failed_call_did_is_not_told() -> None:
    def fail(attempt: int) -> None:
        if attempt == 1:
            raise ValueError("a long story, " * 30 + "\nwith a second line")

    _, run, said, evaluate = attempts(fail)
    evaluate()
    assert run.done.switched_off
    assert not run.done.least
    assert run.done.met is None
    assert len(said[0][0]) == 120
    assert "\n" not in said[0][0]


@pytest.mark.parametrize("where", ["in the change", "in its evaluation"])
def test_a_change_of_guidance_that_fails_is_left_out(where: str) -> None:
    said: list[tuple[str, str]] = []
    guided = torch.zeros(1, 4, 8, 8)

    class Evaluator:
        failing = where == "in its evaluation"

        def apply_model(self, x: torch.Tensor) -> torch.Tensor:
            failing, self.failing = self.failing, False
            if failing:
                raise ValueError("no such size")
            return x + 1

    def change(evaluation: Evaluation) -> torch.Tensor:
        again = evaluation.uncond_again()
        if where == "in the change":
            raise ValueError("no such size")
        return again

    evaluator, at_work = Evaluator(), ExitStack()
    at_work.callback(lambda: said.append(("closed", "")))
    with falling_back(evaluator, Run(Schedule([500.0])), lambda *what: said.append(what)) as fallback:
        fallback.enter(at_work)
        guarded = fallback.guarded(change)
        for _ in range(2):
            assert guarded(Evaluation(guided, guided, lambda: evaluator.apply_model(guided))) is guided
    assert [what for what, _ in said] == ["closed", "ValueError: no such size"]


def test_a_lack_of_memory_in_every_wording() -> None:
    words = [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "MPS backend out of memory (MPS allocated: 17.97 GB)",
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory",
        "Could not allocate tensor with 4096 bytes. There is not enough GPU video memory available!",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ]
    assert all(is_out_of_memory(RuntimeError(text)) for text in words)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("Sizes of tensors must match except in dimension 1"))
    assert not is_out_of_memory(ValueError("out of memory"))
