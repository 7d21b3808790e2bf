"""The cells of the benchmark (one method at one size), and the pictures they hold on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from hidiffusion_ext.core.options import FasterSecondPass

NATIVE_ROW = "native"
REFERENCE_ROW = "native reference"
TRUE_ROW = "true rendering"
TRUE_DECODED_ROW = "true rendering, decoded"
RESTARTED_AT = (0.38, 0.6)
"""Strengths at which true renderings are noised and denoised, as img2img does."""

FIRST_SEED = {REFERENCE_ROW: 500_000}
"""Picture i of a cell has seed 1000 + i; the reference, which all cells are compared with, other seeds."""

USUAL_FIRST_SEED = 1000
ORDER_SEED = 7

SQUARE_2X, SQUARE_3X, SQUARE_4X, TALL = (256, 256), (384, 384), (512, 512), (384, 192)

STRENGTHS = (0.3, 0.5, 0.7)
HELPERS = ("direct", "MSW-MSA only", "HiDiffusion")
"""What a second pass is made with. HiDiffusion leaves RAU-Net out below a strength of 0.6: that is MSW-MSA only."""

RAUNET_FROM = 0.6
SCHEDULERS = ("Karras", "Beta")
SPACED = ("HiDiffusion by steps", "HiDiffusion")
"""What is compared on other schedules than the evenly spaced one with 10 steps, where both are the same."""

FEW_STEPS = (4, 8)


def second_pass(strength: float, helper: str, in_pixels: bool = True) -> str:
    """The name of the method that goes over an enlarged native picture again."""
    return f"hires {strength:g} in {'pixels' if in_pixels else 'the latent'}, {helper}"


def restarted(strength: float) -> str:
    """The name of true renderings that are noised and denoised at their size: whether the model can keep them."""
    return f"{TRUE_ROW}, restarted at {strength:g}"


GUIDED = {"split guidance 1.5": (1.5, 0.0), "anchor 1": (1.0, 1.0)}
"""How a second pass with MSW-MSA may be guided: (split guidance, anchor)."""

GUIDED_AT = (0.3, 0.5)


def guided(strength: float, guidance: str) -> str:
    """The name of a second pass in pixels with MSW-MSA and that guidance."""
    return f"{second_pass(strength, 'MSW-MSA only')}, {guidance}"


NATIVE_FIRST, RELAY = "Native first", "Relay"
"""What the method makes of a job: a second pass at the strength that it takes."""

RESTART = 0.38
"""The strength: with this model's spacing the noise's standard deviation is 1.08 of the signal's."""

NOTHING = "nothing left out"
LEFT_OUT = {
    NOTHING: FasterSecondPass.OFF,
    "short first pass": FasterSecondPass.SHORT,
    "no guidance at the end": FasterSecondPass.INTERVAL,
    "DeepCache": FasterSecondPass.DEEP_CACHE,
}
"""What is left out of second passes and Relay in the place of all that can be."""

USUAL_STEPS = 20
"""With as many DeepCache has steps to work in."""


def leaving_out(what: str, method: str = NATIVE_FIRST) -> str:
    """The name of a method with only that left out."""
    return f"{method}, {what}"


STRONG = second_pass(0.7, "HiDiffusion")
LATE = [
    *(NATIVE_FIRST, *(leaving_out(what) for what in LEFT_OUT)),
    *(RELAY, leaving_out(NOTHING, RELAY)),
    *(STRONG, leaving_out(NOTHING, STRONG)),
]
"""What something is left out of, and what is left out."""

WAYS = ["native + Lanczos", "direct", "HiDiffusion", "ScaleCrafter", NATIVE_FIRST, RELAY]
"""What a picture can be made larger with: put side by side in docs/ways.md."""


def spaced(method: str, scheduler: str) -> str:
    """The name of a method on another schedule than the evenly spaced one."""
    return f"{method}, {scheduler}"


def in_steps(method: str, steps: int) -> str:
    """The name of a method with other steps than the benchmark's."""
    return f"{method}, {steps} steps"


@dataclass(frozen=True)
class Cell:
    """One method at one size in pixels."""

    method: str
    height: int
    width: int

    @property
    def name(self) -> str:
        """For folders and the command line."""
        return f"{re.sub('[^a-z0-9.]+', '-', self.method.lower())}-{self.height}x{self.width}"

    def seed(self, index: int) -> int:
        return FIRST_SEED.get(self.method, USUAL_FIRST_SEED) + index


def all_cells() -> list[Cell]:
    """Every cell, most important first: a budget of time works through the list in this order."""
    ways, late = WAYS[1:], [in_steps(method, USUAL_STEPS) for method in LATE]
    restarts = [restarted(strength) for strength in RESTARTED_AT]
    truth, enlarged = [TRUE_ROW, TRUE_DECODED_ROW], WAYS[0]
    helped = [(s, helper) for s in STRENGTHS for helper in HELPERS if helper != "HiDiffusion" or s >= RAUNET_FROM]
    by_size: list[tuple[tuple[int, int], list[str]]] = [
        ((128, 128), [REFERENCE_ROW, NATIVE_ROW]),
        *((size, [*truth, *restarts, enlarged, *ways]) for size in (SQUARE_2X, SQUARE_4X)),
        (SQUARE_3X, [*truth, enlarged, *ways, "HiDiffusion T1 0.4"]),
        (TALL, [enlarged, *ways]),
        (SQUARE_2X, late),
        *((size, late[:2]) for size in (SQUARE_3X, SQUARE_4X)),
        (SQUARE_2X, ["RAU-Net only", "MSW-MSA only", "HiDiffusion T1 0.2", "HiDiffusion T1 0.6", "HiDiffusion T1 0.8"]),
        (SQUARE_2X, [spaced(method, scheduler) for scheduler in SCHEDULERS for method in SPACED]),
        (SQUARE_2X, [in_steps(method, steps) for steps in FEW_STEPS for method in ("direct", "HiDiffusion")]),
        (SQUARE_2X, [*(second_pass(*each) for each in helped), second_pass(0.5, "MSW-MSA only", in_pixels=False)]),
        (SQUARE_2X, [guided(strength, guidance) for strength in GUIDED_AT for guidance in GUIDED]),
        (SQUARE_2X, ["ScaleCrafter + MSW-MSA", "Deep Shrink 75%"]),
        (SQUARE_4X, ["ScaleCrafter + dispersion", "ScaleCrafter + damped guidance"]),
    ]
    cells = (Cell(method, *size) for size, methods in by_size for method in methods)
    return list(dict.fromkeys(cells))


SHOWN = {
    "objects": (Cell("direct", *SQUARE_2X), Cell("HiDiffusion", *SQUARE_2X), (4, 22)),
    "shapes": (Cell("HiDiffusion", *SQUARE_4X), Cell(NATIVE_FIRST, *SQUARE_4X), (11, 16)),
    "textures": (Cell("HiDiffusion T1 0.8", *SQUARE_2X), Cell("HiDiffusion", *SQUARE_2X), (0, 3)),
}
"""What the README's table shows: the cells before and after, and the numbers of pictures in which it is plain."""


def prompt_number(index: int, prompts: int) -> int:
    """The number of picture `index`'s prompt: all prompts in a fixed shuffled order, again and again.

    So the first pictures of a cell are a fair sample of the prompts, whatever their number.
    """
    return int(np.random.default_rng(ORDER_SEED).permutation(prompts)[index % prompts])


class Store:
    """Pictures of cells as PNG files, and beside them what one of them costs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def missing(self, cell: Cell, count: int) -> list[int]:
        """The pictures out of the first `count` that are not there yet."""
        return [index for index in range(count) if not self._path(cell, index).exists()]

    def complete(self, cell: Cell) -> int:
        """How many pictures are there without a gap."""
        count = 0
        while self._path(cell, count).exists():
            count += 1
        return count

    def write(self, cell: Cell, index: int, picture: np.ndarray) -> None:
        """Keeps a uint8 picture `[H, W, 3]`; an interruption leaves the whole file or none."""
        path = self._path(cell, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        Image.fromarray(picture).save(temporary, "PNG")
        temporary.replace(path)

    def read(self, cell: Cell, index: int) -> np.ndarray:
        """A picture `[H, W, 3]`."""
        with Image.open(self._path(cell, index)) as image:
            return np.asarray(image.convert("RGB"))

    def write_operations(self, cell: Cell, operations: int) -> None:
        """Keeps how many operations a picture of the cell costs."""
        path = self._operations_path(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(operations), encoding="utf-8")

    def operations(self, cell: Cell) -> int | None:
        """How many operations a picture of the cell costs; None where nobody has counted yet."""
        path = self._operations_path(cell)
        return int(path.read_text(encoding="utf-8")) if path.exists() else None

    def _path(self, cell: Cell, index: int) -> Path:
        return self.folder / cell.name / f"{index:05}.png"

    def _operations_path(self, cell: Cell) -> Path:
        return self.folder / cell.name / "operations.txt"


class Sampler(Protocol):
    """What makes the pictures of a cell."""

    @property
    def captions(self) -> Sequence[str]:
        """What the prompts are."""
        ...

    def sample(self, cell: Cell, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """uint8 pictures `[n, H, W, 3]` by the cell's method at its size."""
        ...

    def operations(self, cell: Cell) -> int:
        """Floating-point operations of the whole job for one picture of the cell, decoding included."""
        ...
