"""Jobs of one and of two passes, on a model that only notes what it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from unets import tiny_unet

from benchmarks.quality.cells import GUIDED, TRUE_ROW, all_cells, guided, restarted, second_pass
from benchmarks.quality.jobs import JOBS, Kept, Request, resized
from benchmarks.quality.rendering import rendered
from demo_model import DemoModel
from hidiffusion_ext.core import map_unet


def request() -> Request:
    return Request(["star", "red heart"], [3, 4], (256, 256), steps=10, guidance=4.0)


class Noted(DemoModel):
    """Notes every pass and draws grey; its autoencoder is an eighth of the picture and back."""

    def __init__(self) -> None:
        self.unet = tiny_unet()
        self.unet_map = map_unet(self.unet)
        self.passes: list[tuple[tuple[int, int], dict[str, Any]]] = []

    def draw(self, prompts: Any, seeds: Any, latent: Any, **settings: Any) -> torch.Tensor:
        self.passes.append((latent, settings))
        return torch.arange(4.0)[None, :, None, None].expand(len(prompts), 4, *latent) / 4

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        small = F.avg_pool2d(pictures, 8)
        return torch.cat([small, small[:, :1]], dim=1)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x[:, :3], scale_factor=8)


def test_every_cell_has_a_job() -> None:
    assert {cell.method for cell in all_cells()} <= set(JOBS)


@pytest.mark.parametrize("name", ["direct", "HiDiffusion", "native + Lanczos"])
def test_jobs_of_one_pass(name: str) -> None:
    model = Noted()
    assert JOBS[name](model, request()).shape == (2, 3, 256, 256)
    ((latent, settings),) = model.passes
    assert latent == ((16, 16) if "native" in name else (32, 32))
    assert settings["steps"] == 10
    assert "begin" not in settings


@pytest.mark.parametrize("in_pixels", [True, False])
def test_a_second_pass_begins_with_the_enlarged_native_picture(in_pixels: bool) -> None:
    model = Noted()
    assert JOBS[second_pass(0.3, "MSW-MSA only", in_pixels)](model, request()).shape == (2, 3, 256, 256)
    (first, _), (second, settings) = model.passes
    assert (first, second) == ((16, 16), (32, 32))
    assert settings["strength"] == 0.3
    expected = torch.tensor([0, 0.25, 0.5, 0.0 if in_pixels else 0.75])[None, :, None, None].expand(2, 4, 32, 32)
    assert torch.allclose(settings["begin"], expected, atol=1 / 255)


def test_true_pictures_are_restarted_as_the_autoencoder_has_them() -> None:
    model = Noted()
    wanted = request()
    assert JOBS[restarted(0.38)](model, wanted).shape == (2, 3, 256, 256)
    ((latent, settings),) = model.passes
    assert (latent, settings["strength"]) == ((32, 32), 0.38)
    assert torch.equal(settings["begin"], model.encode(JOBS[TRUE_ROW](model, wanted)))


def test_a_native_picture_has_the_aspect_that_is_asked_for() -> None:
    model = Noted()
    assert JOBS["Native first"](model, replace(request(), size=(192, 384))).shape == (2, 3, 192, 384)
    assert [latent for latent, _ in model.passes] == [(11, 22), (24, 48)]


def test_a_first_pass_is_made_once() -> None:
    model, kept = Noted(), Kept()
    wanted = replace(request(), kept=kept)
    first = JOBS[second_pass(0.3, "direct")](model, wanted)
    assert torch.equal(JOBS[second_pass(0.3, "direct")](model, wanted), first)
    assert [latent for latent, _ in model.passes] == [(16, 16), (32, 32), (32, 32)]
    JOBS["native + Lanczos"](model, replace(wanted, seeds=[3, 5]))
    assert model.passes[-1][0] == (16, 16)


def test_resizing_to_the_same_size_changes_nothing_but_rounding() -> None:
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    assert (resized(pictures, (16, 24)) - pictures).abs().max() <= 0.5 / 255 + 1e-6
    assert resized(pictures, (32, 40)).shape == (2, 3, 32, 40)


@pytest.mark.parametrize("size", [(128, 128), (256, 256), (96, 192)])
def test_a_true_rendering_is_its_seeds(size: tuple[int, int]) -> None:
    picture = rendered("star", 5, size)
    assert picture.shape == (*size, 3)
    assert (picture == rendered("star", 5, size)).all()
    assert (picture != rendered("star", 6, size)).any()


@pytest.mark.parametrize("guidance", GUIDED)
def test_a_guided_second_pass_differs_by_its_guidance_alone(guidance: str) -> None:
    plain, model = Noted(), Noted()
    JOBS[second_pass(0.3, "MSW-MSA only")](plain, request())
    JOBS[guided(0.3, guidance)](model, request())
    (_, expected), (_, settings) = plain.passes[-1], model.passes[-1]
    assert settings.keys() == expected.keys()
    with settings["patch"]([300.0, 200.0]) as patched, expected["patch"]([300.0, 200.0]) as plainly:
        added = set(patched.plan.names) - set(plainly.plan.names)
    assert added == {name for name in ("split guidance", "anchor") if name.split()[0] in guidance}
