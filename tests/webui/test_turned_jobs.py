"""Which side is which makes no difference to a job: its plan, its text, the size and the crop of its hires pass, and
its picture, if the model's kernels and the noise are turned, too.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import stories
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from job_host import Host
from stories import Job
from torch import nn
from ways import CASES, turned

from hidiffusion_ext.core import Method
from hidiffusion_ext.hosts.schedules import hires_latent
from modules import rng
from modules.processing import StableDiffusionProcessingTxt2Img

SIDES = {"width": "height", "height": "width", "hr_resize_x": "hr_resize_y", "hr_resize_y": "hr_resize_x"}
pixels = st.integers(64, 2048)


def turned_words(told: Any) -> Any:
    """What is told of a job, as it is of the turned one."""
    if isinstance(told, dict):
        return {SIDES.get(name, name): turned_words(value) for name, value in told.items()}
    if isinstance(told, (list, tuple)):
        return type(told)(turned_words(value) for value in told)
    return re.sub(r"(\d+)x(\d+)", r"\2x\1", told) if isinstance(told, str) else told


@settings(max_examples=max(100, CASES), deadline=None)
@given(pixels, pixels, st.floats(1, 4), st.sampled_from([0, 1]), st.sampled_from([0, 1]), pixels, pixels)
def test_a_turned_job_has_the_turned_hires_pass(
    width: int, height: int, scale: float, by_width: int, by_height: int, resize_x: int, resize_y: int
) -> None:
    query = {"width": width, "height": height, "hr_resize_x": by_width * resize_x, "hr_resize_y": by_height * resize_y}

    def latent(query: dict[str, int]) -> tuple[int, int]:
        job = SimpleNamespace(**query, hr_scale=scale, extra_generation_params={}, truncate_x=0, truncate_y=0)
        StableDiffusionProcessingTxt2Img.calculate_target_resolution(job)  # type: ignore[arg-type]
        return hires_latent(job)

    assert latent(turned_words(query)) == latent(query)[::-1]


@pytest.mark.parametrize("method", Method)
@settings(max_examples=CASES, deadline=None)
@given(pixels, pixels, st.booleans(), pixels, pixels)
def test_a_turned_job_has_the_turned_plan(
    fresh_host: Host, method: Method, width: int, height: int, hires: bool, resize_x: int, resize_y: int
) -> None:
    query = {"width": width, "height": height, "method": method.value, "native_size": 256, "steps": 4}
    if hires:
        query |= {"enable_hr": True, "hr_resize_x": resize_x, "hr_resize_y": resize_y, "denoising_strength": 0.7}

    def plan(query: dict[str, Any]) -> Any:
        answer = fresh_host.client.get("/hidiffusion/v1/plan", params=query)
        return answer.json() if answer.status_code == 200 else answer.text

    assert plan(turned_words(query)) == turned_words(plan(query))


class TurnedNoise(rng.ImageRNG):
    """The noise of the turned picture, turned."""

    def __init__(self, shape: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__((shape[0], shape[2], shape[1]), *args, **kwargs)

    def next(self) -> torch.Tensor:
        return turned(super().next())


@contextmanager
def turned_kernels() -> Generator[None, None, None]:
    """The UNet in use with turned kernels."""
    own = {module: module.weight.data for module in stories.unet().modules() if isinstance(module, nn.Conv2d)}
    for module, weight in own.items():
        module.weight.data = turned(weight)
    try:
        yield
    finally:
        for module, weight in own.items():
            module.weight.data = weight


def made(job: Job) -> tuple[np.ndarray, tuple[str, ...]]:
    """Its picture [H, W, 3], and the texts; a hires pass of its own cuts something off."""
    p = stories.new(job)
    p.hr_resize_x, p.hr_resize_y = (136, 120) if job.width > job.height else (120, 136)
    found = stories.make(p)
    size = (136, 120) if job.hires else (job.width, job.height)
    size = size if job.width > job.height else tuple(sorted(size))
    return np.frombuffer(found.pictures[0], np.uint8).reshape(size[1], size[0], 3).astype(int), found.texts


@pytest.mark.parametrize("method", [None, *Method])
def test_a_turned_job_makes_the_turned_picture(
    host: Host, monkeypatch: pytest.MonkeyPatch, method: Method | None
) -> None:
    direct = method is Method.NATIVE_FIRST
    more = (("split_guidance", 2.0), ("anchor", 0.5))
    picture, texts = made(Job(method, 136 if direct else 112, 72, not direct, 1, more))
    lying, _ = made(Job(method, 72, 136 if direct else 112, not direct, 1, more))
    monkeypatch.setattr(rng, "ImageRNG", TurnedNoise)
    with turned_kernels():
        standing, turned_texts = made(Job(method, 72, 136 if direct else 112, not direct, 1, more))
    assert turned_texts == turned_words(texts)
    off = np.abs(standing.transpose(1, 0, 2) - picture)
    assert off.mean() < 0.5  # of 255: sums in another order, rounded
    assert np.abs(lying.transpose(1, 0, 2) - picture).mean() > 10
    assert method is None or "HiDiffusion" in texts[0]
