"""The demo model as the benchmark uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from demo_model import FOLDER, DemoModel

from .cells import Cell
from .jobs import JOBS, Kept, Request


class DemoSampler:
    """The demo model as the benchmark uses it.

    Args:
        steps: DDIM steps.
        guidance: Classifier-free guidance scale.
        bfloat16: Matrix products in bfloat16 (about twice as fast where the CPU has them) instead of float32.
    """

    def __init__(self, steps: int, guidance: float, bfloat16: bool) -> None:
        self.model = DemoModel()
        self.captions = self.model.captions
        self.steps, self.guidance, self.bfloat16 = steps, guidance, bfloat16
        self.kept = Kept()
        self.saved_seconds = 0.0

    def sample(self, cell: Cell, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        request = Request(prompts, seeds, (cell.height, cell.width), self.steps, self.guidance, self.kept)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            pictures = JOBS[cell.method](self.model, request)
        self.saved_seconds, self.kept.saved = self.kept.saved, 0.0
        return (pictures.float() * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def folder(self, root: Path) -> Path:
        """Where this model's pictures with these settings are kept under `root`."""
        digest = hashlib.sha256((FOLDER / "emoji-sd.safetensors").read_bytes()).hexdigest()[:8]
        precision = "bf16" if self.bfloat16 else "fp32"
        return root / f"{digest}-{self.steps}steps-cfg{self.guidance:g}-{precision}"
