"""The golden pictures: what is sampled, and the references. Run as a program it writes the references anew.

PYTHONPATH=.:tools python tests/golden/pictures.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo_model import NATIVE, DemoModel, untouched
from hidiffusion_ext.core import Method, Options, make_plan
from hidiffusion_ext.core.sizes import CELL

REFERENCES = Path(__file__).with_name("references")
PROMPTS = ["red apple", "light bulb", "panda face"]
SEEDS = [1, 2, 3]
STEPS = 6


@dataclass(frozen=True)
class Case:
    """(height, width) in pixels, and the options; None samples directly."""

    size: tuple[int, int]
    options: Options | None = None


CASES = {
    "native": Case((NATIVE, NATIVE)),
    "direct": Case((256, 256)),
    "hidiffusion": Case((256, 256), Options(native_size=NATIVE)),
    "hidiffusion-wide": Case((192, 320), Options(native_size=NATIVE)),  # feature maps of odd sides while it is active
    "scalecrafter": Case((256, 256), Options(native_size=NATIVE, method=Method.SCALECRAFTER, msw_msa=False)),
}


def draw(model: DemoModel, case: Case, count: int = len(PROMPTS)) -> np.ndarray:
    """The case's first so many pictures side by side, uint8 [H, W of all, 3]."""
    patch = untouched
    if case.options is not None:
        latent = (case.size[0] // CELL, case.size[1] // CELL)
        patch = model.patched(make_plan(case.options, model.unet_map, latent))
    pictures = model.sample(PROMPTS[:count], SEEDS[:count], case.size, patch=patch, steps=STEPS)
    return (torch.cat(list(pictures), dim=2) * 255).round().byte().permute(1, 2, 0).numpy()


def reference(name: str, count: int = len(PROMPTS)) -> np.ndarray:
    """The stored pictures of a case, as `draw` gives them."""
    with Image.open(REFERENCES / f"{name}.png") as image:
        return np.asarray(image.convert("RGB"))[:, : count * CASES[name].size[1]]


if __name__ == "__main__":
    REFERENCES.mkdir(exist_ok=True)
    demo_model = DemoModel()
    for name, case in CASES.items():
        Image.fromarray(draw(demo_model, case)).save(REFERENCES / f"{name}.png", optimize=True)
        print(REFERENCES / f"{name}.png")
