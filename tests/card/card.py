"""The device that is tested, and the table of what was found on it."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from tensor_memory import TensorMemory

import hidiffusion_ext

REPOSITORY = Path(__file__).resolve().parents[2]
DEVICES = ("cuda", "mps", "cpu")
MINUTES = 9
"""After so many nothing that takes long is begun any more."""


@dataclass(frozen=True)
class Row:
    """One finding.

    Attributes:
        check: What was looked at.
        of: Of what.
        found: What came out.
        promised: What should.
        kept: Whether it did; None where nothing is promised.
    """

    check: str
    of: str
    found: str
    promised: str = ""
    kept: bool | None = None


class Memory:
    """What the device's memory is asked for while this is open, beyond what is in use before.

    Attributes:
        peak: The most bytes at once. With CUDA what PyTorch has handed out, the workspaces of kernels included;
            elsewhere what tensors take.
    """

    def __init__(self, device: str) -> None:
        self.peak = 0
        self._device, self._counter = device, TensorMemory()

    def __enter__(self) -> Memory:
        if self._device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._counter.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()
            self.peak = torch.cuda.max_memory_allocated() - self._before
        else:
            self._counter.__exit__(*error)
            self.peak = self._counter.peak


class Card:
    """The device of a run.

    Attributes:
        device: Its name in PyTorch.
        small: Whether everything is as small as it can be: on the processor.
        rows: What was found so far.
    """

    def __init__(self, device: str) -> None:
        self.device, self.small = device, device == "cpu"
        self.rows: list[Row] = []
        self._began = time.monotonic()

    @property
    def time_is_up(self) -> bool:
        return time.monotonic() - self._began > 60 * MINUTES

    def note(self, check: str, of: str, found: str, promised: str = "", *, kept: bool | None = None) -> None:
        """Puts a finding into the table."""
        self.rows.append(Row(check, of, found, promised, kept))

    def expect(self, check: str, of: str, found: str, promised: str, *, kept: bool) -> None:
        """Puts a finding into the table; AssertionError if it is not what is promised."""
        self.note(check, of, found, promised, kept=kept)
        assert kept, f"{check}, {of}: {found}; promised: {promised}"

    @contextmanager
    def in_single_precision(self) -> Generator[None]:
        """While open, single precision is what it says: cards round the inputs of convolutions to ten bits (TF32)."""
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32 = before

    def take_all_memory(self) -> None:
        """Asks for more memory than there is, and fails as the device does."""
        if self.device == "cpu":
            torch.empty(2**60, dtype=torch.uint8)
        taken: list[torch.Tensor] = []
        while True:
            taken.append(torch.empty(2**30, dtype=torch.uint8, device=self.device))

    def table(self) -> str:
        """What an issue needs: the machine, and every finding."""
        minutes = (time.monotonic() - self._began) / 60
        lines = [
            f"**HiDiffusion {_version()} on {_name(self.device)}, PyTorch {torch.__version__}, {_system()}**"
            f" ({minutes:.0f} min{', small models' if self.small else ''})",
            "",
            "| check | of | found | promised | kept |",
            "|---|---|---|---|---|",
        ]
        kept = {None: "", True: "yes", False: "**no**"}
        lines += [f"| {row.check} | {row.of} | {row.found} | {row.promised} | {kept[row.kept]} |" for row in self.rows]
        return "\n".join(lines) + "\n"


def is_there(device: str) -> bool:
    """Whether this PyTorch can use such a device here."""
    return device == "cpu" or bool(getattr(torch, device).is_available())


def _version() -> str:
    """The version, and the commit where the folder is a clone."""
    commit = _said_by("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD")
    changed = " and changes" if commit and _said_by("git", "-C", str(REPOSITORY), "status", "--porcelain") else ""
    return hidiffusion_ext.__version__ + (f" ({commit}{changed})" if commit else "")


def _name(device: str) -> str:
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
    if device == "mps":
        return _said_by("sysctl", "-n", "machdep.cpu.brand_string") or "a Mac"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.processor() or platform.machine()


def _system() -> str:
    return f"Python {platform.python_version()}, {platform.system()}"


def _said_by(*command: str) -> str:
    """What a program prints; nothing if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
