"""Times the methods of a setting in turns, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from .subjects import Method, Phase

RESET_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Timing:
    """What was measured of one phase of a method.

    Attributes:
        seconds: One call's, in the order measured.
        peak_bytes: Memory one call needs beyond what was allocated before it; None where that cannot be read.
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
def time_in_turns(methods: Sequence[Method], repeats: int, device: str) -> list[Timing]:
    """One call of every phase of every method, `repeats` times over; before them one of each to warm up, after them one
    for the memory."""
    jobs = [(method, phase) for method in methods for phase in method.phases]
    seconds: dict[int, list[float]] = {index: [] for index in range(len(jobs))}
    peaks: dict[int, int | None] = {}
    turns = itertools.product(range(repeats + 2), enumerate(jobs))
    for turn, (index, (method, phase)) in tqdm(turns, total=(repeats + 2) * len(jobs), unit="call"):
        with method.open() as run:
            call = partial(method.call, phase.step, run)
            if turn == 0:
                call()
            elif turn > repeats:
                peaks[index] = _peak(call, device)
            else:
                _finish(device)
                started = time.perf_counter()
                call()
                _finish(device)
                seconds[index].append(time.perf_counter() - started)
    return [Timing(*job, tuple(seconds[index]), peaks[index]) for index, job in enumerate(jobs)]


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _peak(call: Callable[[], None], device: str) -> int | None:
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        RESET_PEAK.write_text("5")  # Linux: the peak of resident memory starts anew
        before = _resident("VmRSS")
        call()
        return max(0, _resident("VmHWM") - before)
    except OSError:
        call()
        return None


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
