"""What both training loops share: run settings, checkpoints, the loss log and the learning rate."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Run:
    """Where and how a command runs; everything a training writes goes under `folder`."""

    folder: Path
    device: torch.device
    seed: int

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 for the matrix products, on CPU (fast with AVX512-BF16 or AMX) and on GPU."""
        return torch.autocast(self.device.type, torch.bfloat16)


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file in one step, so that an interruption leaves the old or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(dict(content), temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The content of the checkpoint, or None when there is none yet."""
    if not path.exists():
        return None
    return torch.load(path, map_location=device, weights_only=True)


def append_log(path: Path, row: Mapping[str, float]) -> None:
    """Adds one row to a csv file, with a header line when the file is new."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def set_learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warm_up: int, total: int) -> None:
    """Linear warm-up, then a half cosine from `peak` down to a twentieth of it at step `total`."""
    progress = min(1.0, step / total)
    rate = peak * min(1.0, (step + 1) / warm_up) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
    for group in optimizer.param_groups:
        group["lr"] = rate
