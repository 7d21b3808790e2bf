"""What is told of a job before it is made: with all that the job knows, and without waiting for the device."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import server
import torch
from client import encode
from fastapi.testclient import TestClient
from told import parts_of

from hidiffusion_ext.core.parts.part import NOT_GUIDED, WHOLE
from hidiffusion_ext.hosts import asking
from hidiffusion_ext.hosts.guiding import CFG_SCALE_1, OVER_NOISE
from hidiffusion_ext.hosts.schedules import NothingSampled
from hidiffusion_ext.webui import plan_route
from modules import processing, sd_samplers, shared

REPOSITORY = Path(__file__).resolve().parents[2]
SIZE = {"width": 128, "height": 96, "steps": 5}
SCALECRAFTER = {"native_size": 64, "method": "ScaleCrafter", "preset": "4x"}
GUIDED = {"native_size": 64, "split_guidance": 2.0, "anchor": 0.5}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


@pytest.fixture(autouse=True)
def nothing_answered_yet() -> None:
    asking._answers.clear()


def plan(client: TestClient, **query: Any) -> dict[str, Any]:
    response = client.get(plan_route.PATH, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def made(client: TestClient, settings: dict[str, Any], **payload: Any) -> dict[str, Any]:
    """What the infotext of a picture says; with a denoising strength it is one over a grey picture."""
    tab = "img2img" if "denoising_strength" in payload else "txt2img"
    payload = {"sampler_name": "Euler", "seed": 1, "prompt": "a cat", **payload}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, **settings}]}}
    if tab == "img2img":
        payload["init_images"] = [encode(np.full((96, 128, 3), 128, np.uint8))]
    response = client.post(f"/sdapi/v1/{tab}", json=payload)
    assert response.status_code == 200, response.text
    return json.loads(response.json()["info"])["extra_generation_params"]


@pytest.mark.parametrize(
    ("settings", "payload", "options", "facts"),
    [
        (SCALECRAFTER, {"cfg_scale": 1}, {}, {"noise-damped guidance": CFG_SCALE_1}),
        (SCALECRAFTER, {"s_min_uncond": 100}, {}, {"noise-damped guidance": (1, 3, 5)}),
        (SCALECRAFTER, {}, {"skip_early_cond": 0.9}, {"noise-damped guidance": NOT_GUIDED}),
        (SCALECRAFTER, {"sampler_name": "Heun", "s_min_uncond": 100}, {}, {"noise-damped guidance": (1, 3, 5)}),
        (GUIDED, {"denoising_strength": 0.9, "cfg_scale": 1}, {}, {"split guidance": CFG_SCALE_1}),
        (
            GUIDED,
            {"denoising_strength": 0.9, "sampler_name": "DDIM"},
            {},
            {"split guidance": WHOLE, "anchor": OVER_NOISE},
        ),
        (GUIDED, {"denoising_strength": 0.9, "s_min_uncond": 1.0}, {"s_min_uncond_all": True}, {"anchor": (1, 3, 5)}),
        ({"native_size": 64, "t1": 0.5}, {"s_churn": 10, "steps": 8}, {}, {"RAU-Net": (1, 5, 8)}),
    ],
)
def test_the_plan_knows_what_the_job_knows(
    client: TestClient,
    settings: dict[str, Any],
    payload: dict[str, Any],
    options: dict[str, Any],
    facts: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in options.items():
        monkeypatch.setitem(shared.opts.data, name, value)
    payload = {**SIZE, **payload}
    (told,) = plan(client, **settings, **{"sampler_name": "Euler", **payload})["passes"]
    assert facts.items() <= parts_of(told["text"]).items()
    said = made(client, settings, **payload)
    assert told["text"] == said.get("HiDiffusion", said.get("HiDiffusion refused"))
    assert told["active"] == ("HiDiffusion" in said)


def test_nothing_sampled_has_no_steps(client: TestClient) -> None:
    job = {**SIZE, "steps": 1, "sampler_name": "DDIM"}
    told = plan(client, **job, native_size=64)
    (one,) = told["passes"]
    assert (one["steps"], one["work"], one["active"], told["speed_up"]) == (0, [], False, 1.0)
    said = made(client, {"native_size": 64}, **job)
    assert one["text"] == said["HiDiffusion refused"] == str(NothingSampled())
    assert "HiDiffusion" not in said


def test_a_hires_pass_has_a_cfg_scale_of_its_own_where_the_host_has_one(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {**SIZE, "width": 64, "enable_hr": True, "split_guidance": 2, "native_size": 64}
    job["faster_second_pass"] = "Off"

    def second(**query: Any) -> Any:
        return parts_of(plan(client, **{**job, **query})["passes"][1]["text"])["split guidance"]

    assert second(hr_cfg=1) == WHOLE
    assert second(cfg_scale=1, hr_cfg=7) == CFG_SCALE_1
    monkeypatch.setattr(processing.StableDiffusionProcessingTxt2Img, "hr_cfg", 1.0, raising=False)
    assert second() == CFG_SCALE_1
    assert second(hr_cfg=1) == CFG_SCALE_1
    assert second(cfg_scale=1, hr_cfg=7) == WHOLE
    arranged = {"enable_hr": "false", "width": 128, "steps": 8, "method": "Native first"}
    assert second(**arranged) == WHOLE  # its second pass is guided as the first one


@pytest.mark.parametrize("native_size", [1, 7, 8, 10, 24])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 1360), (520, 248)])
def test_any_native_size_and_aspect_has_an_answer(
    client: TestClient, native_size: int, width: int, height: int
) -> None:
    for method in ("Native first", "Relay"):
        told = plan(client, width=width, height=height, steps=2, native_size=native_size, method=method)
        assert all(min(one["width"], one["height"]) >= 8 for one in told["passes"])


QUESTIONS: list[dict[str, Any]] = [
    {"width": 128, "height": 128, "method": "Native first", "steps": 20},
    {"width": 128, "height": 128, "method": "Native first", "sampler_name": "DPM++ 2M", "scheduler": "Karras"},
    {"width": 128, "height": 128, "denoising_strength": 0.6, "scheduler": "SGM Uniform"},
    {"width": 128, "height": 128, "sampler_name": "DDIM"},
    {"width": 128, "height": 128, "sampler_name": "DPM adaptive"},
]


def test_the_device_is_waited_for_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's noise levels are on a device from which nothing can be read but by the copy that is counted."""
    expected = [plan(client, native_size=64, **question) for question in QUESTIONS]
    levels, copies = shared.sd_model.alphas_cumprod, list[torch.Tensor]()
    monkeypatch.setitem(shared.sd_model._buffers, "alphas_cumprod", levels.to("meta"))

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        copies.append(tensor)
        return levels

    monkeypatch.setattr(asking, "copied", copied)
    assert [plan(client, native_size=64, **question) for question in QUESTIONS] == expected
    assert len(copies) == 1
    asking.keep_noise_levels(shared.sd_model)
    assert len(copies) == 1


def test_the_same_question_is_answered_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    original = sd_samplers.create_sampler

    def create(name: str, model: Any) -> Any:
        made.append(name)
        return original(name, model)

    monkeypatch.setattr(sd_samplers, "create_sampler", create)
    for question in QUESTIONS:
        first = plan(client, native_size=64, **question)
        assert len(made) <= 4  # the picture at once, both passes, and the second one's strength
        made.clear()
        assert plan(client, native_size=64, **question) == first
        assert not made
    monkeypatch.setitem(shared.sd_model._buffers, "alphas_cumprod", shared.sd_model.alphas_cumprod.clone())
    plan(client, native_size=64, **QUESTIONS[0])
    assert made  # with other noise levels it is another question


def test_a_question_leaves_the_models_noise_levels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forge's DDIM puts its own on the model as it is made, while a pass may be using them."""
    model = SimpleNamespace(alphas_cumprod=torch.ones(2))
    levels = model.alphas_cumprod

    def create(name: str, model: Any) -> Any:
        model.alphas_cumprod = torch.zeros(2)
        return name

    monkeypatch.setattr(sd_samplers, "create_sampler", create)
    assert asking._sampler("DDIM", model) == "DDIM"
    assert model.alphas_cumprod is levels
