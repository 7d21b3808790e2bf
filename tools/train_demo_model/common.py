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
from torch import distributed, nn


@dataclass(frozen=True)
class Run:
    """Where and how a command runs; everything a training writes goes under `folder`."""

    folder: Path
    device: torch.device
    seed: int
    half: bool

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 for the matrix products if asked for: fast on a GPU and on a CPU with AVX512-BF16 or AMX."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)


def join_workers() -> int:
    """The number of this process among those that `torchrun` started for one training; 0 when it runs alone."""
    if "WORLD_SIZE" not in os.environ:
        return 0
    distributed.init_process_group("gloo")
    return distributed.get_rank()


def average_gradients(module: nn.Module) -> None:
    """Gives all workers the mean of their gradients, so that together they take one step on a larger batch."""
    if not distributed.is_initialized():
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    means = together.split([gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


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
