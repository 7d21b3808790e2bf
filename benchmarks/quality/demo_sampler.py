"""The demo model as the benchmark uses it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from demo_model import FOLDER, DemoModel

from .cells import Cell
from .jobs import JOBS, Kept, Request


class DemoSampler:
    """The demo model as the benchmark uses it.

    Args:
        steps: DDIM steps.
        guidance: Classifier-free guidance scale.
        bfloat16: Matrix products in bfloat16 (about twice as fast where the CPU has them) instead of float32.
        folder: Of the exported model.
    """

    def __init__(self, steps: int, guidance: float, bfloat16: bool, folder: Path = FOLDER) -> None:
        self.model = DemoModel(folder)
        self._folder = folder
        self.captions = self.model.captions
        self.steps, self.guidance, self.bfloat16 = steps, guidance, bfloat16
        self.kept = Kept()

    def sample(self, cell: Cell, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        pictures = self._job(cell, prompts, seeds, self.kept)
        return (pictures.float() * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def operations(self, cell: Cell) -> int:
        """Counted by PyTorch while the job is done, first passes included; its counter knows attention's parts only."""
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self._job(cell, self.captions[:1], [cell.seed(0)], Kept())
        return counter.get_total_flops()

    def _job(self, cell: Cell, prompts: Sequence[str], seeds: Sequence[int], kept: Kept) -> torch.Tensor:
        """Pictures `[n, 3, H, W]`, 0 to 1."""
        request = Request(prompts, seeds, (cell.height, cell.width), self.steps, self.guidance, kept)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return JOBS[cell.method](self.model, request)

    @property
    def setting(self) -> str:
        """What figures must share to stand in one table: the model's checksum, steps and guidance."""
        digest = hashlib.sha256((self._folder / "emoji-sd.safetensors").read_bytes()).hexdigest()[:8]
        return f"{digest}-{self.steps}steps-cfg{self.guidance:g}"

    @property
    def is_the_demo_model(self) -> bool:
        return self._folder.resolve() == FOLDER

    @property
    def precision(self) -> str:
        return "bf16" if self.bfloat16 else "fp32"

    def folder(self, root: Path) -> Path:
        """Where this model's pictures with these settings are kept under `root`."""
        return root / f"{self.setting}-{self.precision}"
