"""Times the methods of a setting in turns, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
        peak_bytes: Memory a call needs beyond what was allocated before it, the most of these calls; None where that
            cannot be read.
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
    """One call of every phase of every method, `repeats` times over; before them one of each to warm up."""
    jobs = [(method, phase) for method in methods for phase in method.phases]
    seconds: list[list[float]] = [[] for _ in jobs]
    peaks: list[list[int]] = [[] for _ in jobs]
    turns = itertools.product(range(repeats + 1), enumerate(jobs))
    for turn, (index, (method, phase)) in tqdm(turns, total=(repeats + 1) * len(jobs), unit="call"):
        with method.open() as run:
            before = _start_peak(device)
            started = time.perf_counter()
            method.call(phase.step, run)
            _finish(device)
            elapsed = time.perf_counter() - started
        if turn > 0:
            seconds[index].append(elapsed)
            if before is not None:
                peaks[index].append(_peak(device) - before)
    return [Timing(*job, tuple(seconds[index]), max(peaks[index], default=None)) for index, job in enumerate(jobs)]


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _start_peak(device: str) -> int | None:
    """Lets the peak of the memory in use start anew; returns what is in use now, or None where it cannot be read."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    try:
        RESET_PEAK.write_text("5")  # Linux: the peak of resident memory starts anew
        return _resident("VmRSS")
    except OSError:
        return None


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
