"""Pictures of the trained demo model: they stay what they are, and HiDiffusion cures what it is for."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from pictures import CASES, PROMPTS, Case, draw, reference

from benchmarks.quality.background import find_background
from benchmarks.quality.objects import count_objects
from benchmarks.quality.preparing import load_native_counts
from demo_model import FOLDER, NATIVE, DemoModel, Patch, untouched
from hidiffusion_ext.core import Options, make_plan
from tools.train_demo_model.data import read_labels

MEAN_TOLERANCE, LARGEST_TOLERANCE = 0.5, 24
"""Of 255. Rounding differs between processors and thread counts; see `test_the_tolerance_sees_a_step_more_or_less`."""

TWICE = (2 * NATIVE, 2 * NATIVE)
FIXED_SET_STRIDE = 16
"""Every sixteenth caption is drawn."""


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel()


def as_uint8(pictures: torch.Tensor) -> list[np.ndarray]:
    return list((pictures * 255).round().byte().permute(0, 2, 3, 1).numpy())


def deviation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(np.int16) - b.astype(np.int16))


@pytest.mark.parametrize("count", [1, pytest.param(len(PROMPTS), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_pictures_are_the_stored_ones(model: DemoModel, name: str, count: int) -> None:
    """The first of them alone, too: it does not depend on those that it was drawn with."""
    difference = deviation(draw(model, CASES[name], count), reference(name, count))
    assert difference.mean() <= MEAN_TOLERANCE
    assert difference.max() <= LARGEST_TOLERANCE


def test_the_tolerance_sees_a_step_more_or_less(model: DemoModel) -> None:
    changed = Options(native_size=NATIVE, t1=0.6)
    difference = deviation(draw(model, Case(TWICE, changed), 1), reference("hidiffusion", 1))
    assert difference.mean() > 4 * MEAN_TOLERANCE
    assert difference.max() > 2 * LARGEST_TOLERANCE


@pytest.mark.slow
def test_at_twice_the_native_size_there_are_fewer_extra_objects(model: DemoModel) -> None:
    native = load_native_counts()
    prompts = model.captions[::FIXED_SET_STRIDE]
    seeds = list(range(len(prompts)))

    def extra(patch: Patch) -> int:
        pictures = model.sample(prompts, seeds, TWICE, patch=patch, steps=10)
        counts = [count_objects(find_background(picture)) for picture in as_uint8(pictures)]
        return sum(max(0, count - native[prompt]) for count, prompt in zip(counts, prompts, strict=True))

    plan = make_plan(Options(native_size=NATIVE), model.unet_map, (32, 32))
    assert extra(model.patched(plan)) < extra(untouched)


def test_the_files_beside_the_model_are_its_own() -> None:
    stated, name = (FOLDER / "emoji-sd.sha256").read_text(encoding="utf-8").split()
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == stated
    labels = (FOLDER / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert labels == [caption for _, caption in read_labels()]
    assert list(load_native_counts()) == labels
