"""Times the methods of a setting in turns, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from tensor_memory import TensorMemory
from tqdm import tqdm

from hidiffusion_ext.core import Run

from .calls import Method, Phase


@dataclass(frozen=True)
class Timing:
    """What was measured of one phase of a method.

    Attributes:
        seconds: One call's, in the order measured.
        peak_bytes: What the tensors of one call take at most at once, beyond the weights and the input; None if that
            was not counted.
    """

    method: Method
    phase: Phase
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range of the middle half of the times, as a share of the median."""
        ordered = sorted(self.seconds)
        quarter = len(ordered) // 4
        return (ordered[-1 - quarter] - ordered[quarter]) / 2 / self.median


@torch.inference_mode()
def time_once(methods: Sequence[Method], device: str) -> list[Timing]:
    """One call of every phase of every method, where a call takes minutes: not warmed up, and no memory is counted."""
    jobs = [(method, phase) for method in methods for phase in method.phases]
    return [Timing(*job, (timed(*job, device),), None) for job in tqdm(jobs, unit="call")]


@torch.inference_mode()
def time_in_turns(methods: Sequence[Method], repeats: int, device: str) -> list[Timing]:
    """One call of every phase of every method, `repeats` times over; before them one of each to warm up, whose memory
    is counted."""
    jobs = [(method, phase) for method in methods for phase in method.phases]
    seconds: list[list[float]] = [[] for _ in jobs]
    memory = [TensorMemory() for _ in jobs]
    turns = itertools.product(range(repeats + 1), enumerate(jobs))
    for turn, (index, (method, phase)) in tqdm(turns, total=(repeats + 1) * len(jobs), unit="call"):
        if turn == 0:
            with begun(method, phase) as run, memory[index]:
                method.call(phase.step, run)
        else:
            seconds[index].append(timed(method, phase, device))
    return [Timing(*job, tuple(seconds[index]), memory[index].peak) for index, job in enumerate(jobs)]


@contextmanager
def begun(method: Method, phase: Phase) -> Generator[Run | None]:
    """What the method opens, with the calls made that a call of the phase needs before it."""
    with method.open() as run:
        if phase.before is not None:
            method.call(phase.before, run)
        yield run


def timed(method: Method, phase: Phase, device: str) -> float:
    """Seconds of one call."""
    with begun(method, phase) as run:
        finish(device)
        started = time.perf_counter()
        method.call(phase.step, run)
        finish(device)
        return time.perf_counter() - started


def finish(device: str) -> None:
    """Waits until the device has done what it was given."""
    if device != "cpu":
        getattr(torch, device).synchronize()
