"""On a graphics card: what every method takes at full size, beside what the plan says; and ways to the same end."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import takewhile

import pytest
import torch
import torch.nn.functional as F
from card import Card, Memory
from einops import rearrange
from snapshot import snapshot
from unets import tiny_shape

from benchmarks.speed import subjects
from benchmarks.speed.subjects import OURS, VANILLA, VANILLA_DIFFUSERS, Method, Phase, Setting, Subject
from benchmarks.speed.timing import finish, timed
from hidiffusion_ext.core import Family, Options, make_plan, map_unet
from hidiffusion_ext.core.cost import count, speed_up
from hidiffusion_ext.core.parts.windows import window_partition, window_reverse, window_shift
from hidiffusion_ext.core.resizing import bicubic, by_matrices
from hidiffusion_ext.hosts.fallback import is_out_of_memory

FULL_SIZE = {"sd15": 1024, "sdxl": 2048}
TINY = {"tiny SD1.5": Family.SD1, "tiny SDXL": Family.SDXL}
TINY_NATIVE = 64

LONG = 4.0
"""Seconds from which on a call is made once, and not warmed up."""

WORKSPACE = 1.05
"""What a call may take over the unpatched one: the windows' tables, and what kernels take for themselves."""


@pytest.fixture(params=list(zip(FULL_SIZE, TINY)), ids=FULL_SIZE)
def subject(request: pytest.FixtureRequest, card: Card, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    """A UNet of full size in half precision, at twice its native side, with guidance; a tiny one on the processor."""
    full, tiny = request.param
    name, side, dtype = (
        (tiny, 2 * TINY_NATIVE, torch.bfloat16) if card.small else (full, FULL_SIZE[full], torch.float16)
    )
    if card.small:
        monkeypatch.setitem(subjects.MODELS, tiny, tiny_shape(TINY[tiny]))
        for way, options in OURS.items():
            values = {**vars(options), "native_size": TINY_NATIVE}
            monkeypatch.setitem(subjects.OURS, way, Options(**values))
    if card.time_is_up:
        card.note(f"{name} {side}x{side}", "", "not begun: the time was up")
        pytest.skip("the time was up")
    try:
        made = Subject(Setting(name, side, side, 2, dtype, card.device, steps=20))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        card.note(f"{name} {side}x{side}", "", f"the model does not fit ({type(error).__name__})")
        pytest.skip("the model does not fit")
    yield made
    del made
    gc.collect()
    if card.device != "cpu":
        getattr(torch, card.device).empty_cache()


def measured(method: Method, phase: Phase, card: Card) -> tuple[float, int]:
    """Seconds and bytes of one call."""
    with method.open() as run, Memory(card.device) as memory:
        finish(card.device)
        started = time.perf_counter()
        method.call(phase.step, run)
        finish(card.device)
        first = time.perf_counter() - started
    if first > LONG or card.small:
        return first, memory.peak
    return statistics.median(timed(method, phase, card.device) for _ in range(3)), memory.peak


@torch.inference_mode()
def test_every_method(card: Card, subject: Subject) -> None:
    setting = subject.setting
    of_all = f"{setting.model} {setting.width}x{setting.height}, {str(setting.dtype).removeprefix('torch.')}"
    answers: list[torch.Tensor] = []
    subject.unet.register_forward_hook(lambda module, args, output: answers.append(output))
    state = snapshot(subject.unet)
    direct = 0.0, 0
    numbers = True
    broken: list[str] = []
    for method in takewhile(lambda one: one.name != VANILLA_DIFFUSERS, subject.methods()):
        if card.time_is_up:
            card.note(of_all, method.name, "not measured: the time was up")
            continue
        try:
            found = {phase.name: measured(method, phase, card) for phase in method.phases}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            card.note(of_all, method.name, f"out of memory ({type(error).__name__})")
            continue
        assert snapshot(subject.unet) == state
        steps = method.counts(setting.steps)
        seconds = sum(one * steps[name] for name, (one, _) in found.items())
        peak = max(each for _, each in found.values())
        if method.name == VANILLA:
            direct = seconds, peak
        calls = ", ".join(f"{name} {1000 * one:.0f} ms" for name, (one, _) in found.items())
        memory = f"{peak / 2**20:.0f} MiB"
        if direct[0] and method.name != VANILLA:
            calls = f"{direct[0] / seconds:.2f} times as fast: {calls}"
            memory += f", {peak / direct[1]:.2f} of direct's"
        card.note(f"speed, {of_all}", method.name, calls, promise(subject, method.name))
        if method.name == VANILLA:
            card.note(f"memory, {of_all}", method.name, memory)
        elif direct[1]:
            kept = peak <= WORKSPACE * direct[1]
            card.note(f"memory, {of_all}", method.name, memory, "at most direct's", kept=kept)
            broken += [] if kept else [f"{method.name} takes {memory}"]
        whole = all(bool(torch.isfinite(answer).all()) for answer in answers)
        numbers = whole if method.name == VANILLA else numbers
        broken += [] if whole or not numbers else [f"{method.name} gives no numbers where the unpatched UNet does"]
        answers.clear()
    assert not broken


def promise(subject: Subject, name: str) -> str:
    """What the plan says of the speed of a pass."""
    if name not in OURS:
        return ""
    plan = make_plan(OURS[name], map_unet(subject.unet), subject.setting.latent)
    return f"{speed_up(count(plan, subject.setting.schedule)):.2f} times, by multiplications"


Way = Callable[[torch.Tensor], torch.Tensor]


def cut_by_rolling(x: torch.Tensor, size: tuple[int, int], shift: tuple[int, int]) -> torch.Tensor:
    height, width = size
    x = rearrange(x, "b (h w) c -> b h w c", h=height).roll((-shift[0], -shift[1]), (1, 2))
    cut = rearrange(x, "b (ny h) (nx w) c -> (ny nx) b h w c", ny=2, nx=2)
    x = rearrange(cut, "(ny nx) b h w c -> b (ny h) (nx w) c", ny=2)
    return rearrange(x.roll(shift, (1, 2)), "b h w c -> b (h w) c", h=height, w=width)


@pytest.mark.parametrize("what", ["cutting windows and back", "enlarging a map"])
def test_ways_to_the_same_end(card: Card, what: str) -> None:
    """What is done on all devices, or on some, against the other way to do it."""
    side, channels = (16, 32) if card.small else (128, 320)
    size = side, side
    dtype = torch.bfloat16 if card.small else torch.float16
    if what == "cutting windows and back":
        where = size, window_shift(size, 1)
        x = torch.randn(2, side * side, channels, device=card.device, dtype=dtype)
        ways: dict[str, Way] = {
            "by a table": lambda x: window_reverse(window_partition(x, *where), *where),
            "rolled and rearranged": lambda x: cut_by_rolling(x, *where),
        }
    else:
        x = torch.randn(2, channels, side // 2, side // 2, device=card.device, dtype=dtype)
        ways = {
            "as done here": lambda x: bicubic(x, size),
            "torch's bicubic": lambda x: F.interpolate(x, size=size, mode="bicubic"),
            "by matrices": lambda x: by_matrices(x, size, "bicubic"),
        }
    times: list[str] = []
    answers: list[torch.Tensor] = []
    for name, way in ways.items():
        try:
            answers.append(way(x).float())
        except (NotImplementedError, RuntimeError) as error:
            times.append(f"{name}: not there ({type(error).__name__})")
            continue
        seconds: list[float] = []
        for _ in range(10):
            finish(card.device)
            started = time.perf_counter()
            way(x)
            finish(card.device)
            seconds.append(time.perf_counter() - started)
        times.append(f"{name} {1000 * statistics.median(seconds):.2f} ms")
    agree = all(torch.allclose(answer, answers[0], rtol=0.02, atol=0.02) for answer in answers)
    card.expect("ways", what, ", ".join(times), "the same answer", kept=agree)
