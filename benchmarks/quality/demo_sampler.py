"""The demo model as the benchmark uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from demo_model import FOLDER, DemoModel, untouched

from .cells import NATIVE_ROW, REFERENCE_ROW, Cell
from .methods import METHODS


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

    def sample(self, cell: Cell, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        at_native_size = cell.method in (NATIVE_ROW, REFERENCE_ROW)
        patch = untouched if at_native_size else METHODS[cell.method](self.model, (cell.height, cell.width), seeds[0])
        size, settings = (cell.height, cell.width), {"steps": self.steps, "guidance": self.guidance}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            pictures = self.model.sample(prompts, seeds, size, patch=patch, **settings)
        return (pictures.float() * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def folder(self, root: Path) -> Path:
        """Where this model's pictures with these settings are kept under `root`."""
        digest = hashlib.sha256((FOLDER / "emoji-sd.safetensors").read_bytes()).hexdigest()[:8]
        precision = "bf16" if self.bfloat16 else "fp32"
        return root / f"{digest}-{self.steps}steps-cfg{self.guidance:g}-{precision}"
