"""Random failures at random places of a patched pass: the picture is made all the same, without us from there on.

FALLBACK_CASES=10000 makes it that many.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import pytest
import torch
from faults import PLACES, Fault, Interrupted, random_way
from leftovers import UNETS
from plans import IN_A_PASS
from snapshot import snapshot
from torch import nn
from unets import inputs, uniform_timesteps

from hidiffusion_ext.core import (
    Family,
    Options,
    Plan,
    Run,
    Schedule,
    hidiffusion,
    make_plan,
    map_unet,
)
from hidiffusion_ext.core.parts import windows as windows_module
from hidiffusion_ext.core.parts.anchor import Anchor
from hidiffusion_ext.core.parts.damped_guidance import DampedGuidance
from hidiffusion_ext.core.parts.deep_cache import DeepCache
from hidiffusion_ext.core.parts.guidance_interval import GuidanceInterval
from hidiffusion_ext.core.parts.raunet import POOLED, STRIDED, RAUNet
from hidiffusion_ext.core.parts.redilation import DISPERSION, Redilation
from hidiffusion_ext.core.parts.relay import Relay
from hidiffusion_ext.core.parts.split_guidance import SplitGuidance
from hidiffusion_ext.core.parts.windows import MSWMSA, ODD
from hidiffusion_ext.core.words import describe
from hidiffusion_ext.hosts.fallback import falling_back, is_out_of_memory

CASES = int(os.environ.get("FALLBACK_CASES", "120"))
STEPS = 3
SETTINGS_TRIED = 9


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


OUT_OF_MEMORY = THE_HOSTS[:3]
IN_CALLS = [place for place in PLACES if place.__name__ not in ("while_patching", "while_restoring")]


TOLD = {STRIDED: RAUNet.name, POOLED: RAUNet.name, ODD: MSWMSA.name}
"""What notes are told as, if not as they are."""


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


QUIET = (DampedGuidance, DeepCache, GuidanceInterval)
"""What is at work without doing anything in a single call."""


class Case:
    """A plan, and the results of a call at each step of its pass, patched, with less of it, and not."""

    def __init__(self, number: int, choose: random.Random) -> None:
        self.family = choose.choice(list(Family))
        self.unet = UNETS[self.family]
        self.latent = choose.choice([(16, 16), (16, 24), (17, 21)])
        options, _ = random_way(IN_A_PASS[number % len(IN_A_PASS)], choose)
        self.plan = make_plan(options, map_unet(self.unet), self.latent)
        self.x, context = inputs(self.latent)
        self.model = Model(self.unet, context)
        self.seed = number
        with torch.inference_mode():
            self.plain = [self.call(step) for step in range(STEPS)]
            self.patched, self.worked = self.made(self.plan)
            self.less = [self._less(step) for step in range(STEPS)]

    def made(self, plan: Plan) -> tuple[list[torch.Tensor], list[set[str]]]:
        """The results of the calls with a plan, and what each of them did."""
        results, worked, run = list[torch.Tensor](), list[set[str]](), self.new_run()
        with self.patches(plan, run):
            for step in range(STEPS):
                run.done.least.clear()
                results.append(self.call(step))
                quiet = {kind.name for kind in QUIET if run.has(kind)}
                worked.append({TOLD.get(what, what) for what in run.done.least} | quiet)
        return results, worked

    def _less(self, step: int) -> tuple[torch.Tensor, set[str]]:
        """What a call is to result in after a failure, and what has to be left out in it."""
        inside = partial(self.new_run().schedule.inside, timestep=uniform_timesteps(STEPS)[step])
        planned, plan = self.worked[step], self.plan
        while plan := plan.lesser([part for part in plan.parts if any(map(inside, part.spans))]):
            results, worked = self.made(plan)
            if worked[step] != planned:
                return results[step], planned - worked[step]
        return self.plain[step], planned

    def new_run(self) -> Run:
        return Run(Schedule(uniform_timesteps(STEPS)), torch.Generator().manual_seed(self.seed))

    def patches(self, plan: Plan, run: Run) -> AbstractContextManager[None]:
        return hidiffusion(self.unet, plan, run)

    def call(self, step: int) -> torch.Tensor:
        torch.manual_seed(self.seed)
        t = torch.tensor([uniform_timesteps(STEPS)[step]])
        return self.model.apply_model(self.x, t, control={"input": [0.5, 0.25]})


def test_random_failures_lose_no_picture() -> None:
    choose = random.Random(20261126)
    states = {family: snapshot(unet) for family, unet in UNETS.items()}
    cases = [Case(number, choose) for number in range(SETTINGS_TRIED)]
    ended = {"unharmed": 0, "with less": 0, "without us": 0, "by the host": 0}
    for number in range(CASES):
        case, step = choose.choice(cases), choose.randrange(STEPS)
        fault = Fault(choose.choice(OURS * 3 + THE_HOSTS), choose.choice([1, 2, 3, 5, 8, 20, 60, 120]))
        said: list[tuple[Any, str, str]] = []
        run = case.new_run()
        case.model.calls = 0
        with torch.inference_mode(), ExitStack() as stack, ExitStack() as faults:
            patches = partial(case.patches, run=run)
            stack.enter_context(falling_back(case.model, case.plan, patches, run, lambda *what: said.append(what)))  # noqa: B023
            choose.choice([*IN_CALLS, in_the_windows])(fault, case.unet, faults, choose)
            try:
                result = case.call(step)
            except fault.error:
                assert fault.raised
                assert fault.error in THE_HOSTS
                inside = partial(run.schedule.inside, timestep=run.timestep)
                assert fault.error not in OUT_OF_MEMORY or not case.plan.needs_memory(inside)
                ended["by the host"] += 1
            else:
                faults.close()
                assert case.model.calls == 1
                if fault.raised:
                    assert fault.error in [*OURS, *OUT_OF_MEMORY]
                    ((left_out, what, trace),) = said
                    assert what.startswith(fault.error.__name__)
                    assert trace.startswith("Traceback")
                    assert "in __call__" in trace
                    assert run.done.left_out == set(left_out)
                    expected, failed = case.less[step]
                    assert set(left_out) == failed, (number, describe(case.plan))
                    assert torch.equal(result, expected), (number, describe(case.plan))
                    if expected is case.plain[step]:
                        assert snapshot(case.unet) == states[case.family]  # while the pass goes on
                    ended["without us" if expected is case.plain[step] else "with less"] += 1
                else:
                    assert torch.equal(result, case.patched[step])
                    ended["unharmed"] += 1
        assert vars(case.model).keys() == {"unet", "context", "calls"}
        assert snapshot(case.unet) == states[case.family], number
    print(f"{CASES} cases ended {ended}")
    assert all(count > CASES / 20 for count in ended.values()), ended


class Attempts:
    """Evaluations of a model with a plan, each of which fails as it is asked to.

    Args:
        fail: Gets the number of the attempt, from 1, and raises or not.
        options: What the plan is made from.

    Attributes:
        plan, run: Of the pass.
        said: What the fallback says.
        count: How many attempts there were.
    """

    def __init__(self, fail: Callable[[int], None], **options: Any) -> None:
        self._fail, self._unet = fail, UNETS[Family.SD1]
        self._x, context = inputs((16, 16))
        self._model = Model(self._unet, context)
        self.plan = make_plan(Options.from_mapping({"native_size": 64, **options}), map_unet(self._unet), (16, 16))
        self.run = Run(Schedule(uniform_timesteps(STEPS)), torch.Generator())
        self.said: list[tuple[Any, str, str]] = []
        self.count = 0

    def evaluate(self, calls: int = 1) -> list[torch.Tensor]:
        """That many calls in one pass."""

        def faulty(*_: Any) -> None:
            self.count += 1
            self._fail(self.count)

        torch.manual_seed(0)  # the model draws
        handle = self._unet.register_forward_hook(faulty)
        try:
            with (
                torch.inference_mode(),
                falling_back(
                    self._model,
                    self.plan,
                    lambda plan: hidiffusion(self._unet, plan, self.run),
                    self.run,
                    lambda *what: self.said.append(what),
                ),
            ):
                return [
                    self._model.apply_model(self._x, torch.tensor([900.0]), control={"input": [0.0]})
                    for _ in range(calls)
                ]
        finally:
            handle.remove()


def failing_until(last: int, error: Exception | None = None) -> Callable[[int], None]:
    def fail(attempt: int) -> None:
        if attempt <= last:
            raise error or ValueError("no such size")

    return fail


def test_a_failure_of_the_hosts_own_is_the_hosts() -> None:
    def fail(attempt: int) -> None:
        raise ValueError("ours, perhaps") if attempt < 3 else KeyError("the host's")

    attempts = Attempts(fail)
    with pytest.raises(KeyError) as caught:
        attempts.evaluate()
    assert caught.value.__context__ is None
    assert attempts.said == []
    assert not attempts.run.done.least


def test_what_the_failed_calls_did_is_not_told() -> None:
    attempts = Attempts(failing_until(2, ValueError("a long story, " * 30 + "\nwith a second line")))
    attempts.evaluate()
    assert attempts.run.done.switched_off
    assert not attempts.run.done.least
    assert attempts.run.done.met is None
    ((_, what, _),) = attempts.said
    assert len(what) == 120
    assert "\n" not in what


DISPERSED = {"method": "ScaleCrafter", "preset": "4x", "dispersion": True}
MANY = {Redilation.name, DISPERSION, DampedGuidance.name}


@pytest.mark.parametrize(
    ("options", "failures", "left_out"),
    [
        ({}, 1, {RAUNet.name}),
        ({}, 2, {RAUNet.name, MSWMSA.name}),
        ({"msw_msa": False}, 1, {RAUNet.name}),
        ({"rau_net": False}, 1, {MSWMSA.name}),
        ({"method": "Relay"}, 1, {Relay.name}),
        (DISPERSED, 1, {DISPERSION}),
        (DISPERSED, 2, MANY),
        (DISPERSED, 3, {*MANY, MSWMSA.name}),
    ],
)
def test_what_may_have_failed_is_left_out_first(options: dict[str, Any], failures: int, left_out: set[str]) -> None:
    """As with smoothed energy guidance, which knows one size of a feature map only: windows are kept beside it."""
    attempts = Attempts(failing_until(failures), **options)
    second = attempts.evaluate(calls=2)[1]
    assert attempts.count == failures + 2
    ((said, what, _),) = attempts.said
    assert set(said) == left_out
    assert what == "ValueError: no such size"
    left = set(attempts.plan.names) - left_out
    wanted, is_off = Attempts(failing_until(0), **options), not left & {RAUNet.name, Redilation.name, MSWMSA.name}
    while not is_off and set(wanted.plan.names) != left:
        less = wanted.plan.lesser([part for part in wanted.plan.parts if part.name != DeepCache.name])
        assert less
        wanted.plan = less
    if not is_off:
        assert torch.equal(second, wanted.evaluate(calls=2)[1])
        assert {*attempts.run.done.least} == {*wanted.run.done.least}
    else:
        assert not attempts.run.done.least
    assert attempts.run.done.switched_off is is_off


NO_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("options", "left_out"),
    [({}, None), ({"rau_net": False}, None), ({"method": "Relay"}, None), (DISPERSED, {DISPERSION})],
)
def test_a_lack_of_memory_is_the_hosts_where_we_need_no_more(options: dict[str, Any], left_out: Any) -> None:
    attempts = Attempts(failing_until(1, NO_MEMORY), **options)
    if left_out is None:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            attempts.evaluate()
        assert attempts.count == 1
    else:
        attempts.evaluate()
        assert [set(said) for said, *_ in attempts.said] == [left_out]


def test_a_lack_of_memory_with_enlarged_inputs_is_tried_without() -> None:
    attempts = Attempts(failing_until(2, NO_MEMORY), **DISPERSED)
    attempts.evaluate()
    assert [set(said) for said, *_ in attempts.said] == [MANY]
    attempts = Attempts(failing_until(3, NO_MEMORY), **DISPERSED)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        attempts.evaluate()
    assert attempts.count == 3  # windows need no more than the host


@pytest.mark.parametrize("where", ["in the change", "in its evaluation", "memory in its evaluation"])
def test_a_change_of_guidance_that_fails_is_left_out_alone(where: str) -> None:
    attempts = Attempts(failing_until(0), split_guidance=2.0, anchor=0.5)
    unet, guided = UNETS[Family.SD1], torch.zeros(1, 4, 16, 16)
    plan = attempts.plan.with_parts([*attempts.plan.parts, SplitGuidance(2.0), Anchor(0.5)])
    said: list[Any] = []
    model = attempts._model
    fails = True

    def fail(*_: Any) -> None:
        if fails:
            raise NO_MEMORY if "memory" in where else ValueError("no such size")

    def evaluate() -> torch.Tensor:
        return model.apply_model(guided, torch.tensor([900.0]), control={"input": [0.0]})

    def make() -> torch.Tensor:
        if where == "in the change":
            fail()
        return evaluate()

    with torch.inference_mode(), ExitStack() as stack:
        patches = partial(hidiffusion, unet, run=attempts.run)
        fallback = stack.enter_context(
            falling_back(model, plan, lambda plan: patches(plan=plan), attempts.run, lambda *what: said.append(what))
        )
        handle = unet.register_forward_hook(fail)
        try:
            assert fallback.change(make, guided) is guided
        finally:
            handle.remove()
        fails = False
        assert fallback.change(make, guided) is guided
        evaluate()
        assert MSWMSA.name in attempts.run.done.least
        assert POOLED in attempts.run.done.least or STRIDED in attempts.run.done.least
    assert [what for what, *_ in said] == [[SplitGuidance.name, Anchor.name]]


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
