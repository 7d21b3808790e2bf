"""The method Native first: a large job becomes one with the host's own hires fix, and says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import server
from client import decode
from fastapi.testclient import TestClient

from hidiffusion_ext.core.native_first import RESTART_NOISE
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.hosts.native_first import upscalers, usual_upscaler
from hidiffusion_ext.webui import script
from hidiffusion_ext.webui.script import AFTER_CONTROLNET, HiDiffusionScript
from modules import sd_models, shared

REPOSITORY = Path(__file__).resolve().parents[2]
LARGE = {"width": 192, "height": 256, "steps": 8}
SAMPLERS = [("Euler a", "Automatic"), ("DPM++ 2M", "Karras"), ("DPM++ SDE", "Exponential"), ("DDIM", "Automatic")]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


def made(client: TestClient, settings: dict[str, Any] | None = None, **payload: Any) -> tuple[list[bytes], Any]:
    """The pixels of a job's pictures and what is told of it; without settings HiDiffusion is off."""
    payload = {"seed": 1, "prompt": "a cat", "sampler_name": "Euler", "cfg_scale": 5, **payload}
    if settings is not None:
        args = [{"enabled": True, "native_size": 128, "method": "Native first", **settings}]
        payload["alwayson_scripts"] = {"HiDiffusion": {"args": args}}
    response = client.post("/sdapi/v1/txt2img", json=payload)
    assert response.status_code == 200, response.text
    pictures = [decode(text) for text in response.json()["images"]]
    return [(picture.size, picture.convert("RGB").tobytes()) for picture in pictures], json.loads(
        response.json()["info"]
    )


def plan(client: TestClient, **query: Any) -> dict[str, Any]:
    query = {"native_size": 128, "method": "Native first", **query}
    response = client.get("/hidiffusion/v1/plan", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_large_job_is_one_with_hires_fix(client: TestClient) -> None:
    pictures, told = made(client, {}, **LARGE)
    assert [size for size, _ in pictures] == [(192, 256)]
    said = told["extra_generation_params"]
    strength = said["Denoising strength"]
    assert (told["width"], told["height"], said["Hires resize"]) == (120, 160, "192x256")
    assert said["Hires upscaler"] == "Lanczos"
    assert said["Hires steps"] in (6, 7)  # its least, or one more
    assert said["HiDiffusion hires"].startswith("MSW-MSA")
    assert said["HiDiffusion Method"] == "Native first"
    assert not {"HiDiffusion", "HiDiffusion refused"} & set(said)
    by_hand = {
        **LARGE,
        "width": 120,
        "height": 160,
        "enable_hr": True,
        "hr_resize_x": 192,
        "hr_resize_y": 256,
        "hr_upscaler": "Lanczos",
        "hr_second_pass_steps": said["Hires steps"],
        "denoising_strength": strength,
    }
    assert made(client, {}, **by_hand)[0] == pictures  # what a pasted text asks for
    assert made(client, {"method": "HiDiffusion"}, **by_hand)[0] == pictures
    assert made(client, None, **LARGE)[0] != pictures


@pytest.mark.parametrize(("sampler", "scheduler"), SAMPLERS)
def test_the_second_pass_begins_with_the_same_noise_whatever_the_schedule(
    client: TestClient, sampler: str, scheduler: str
) -> None:
    seen: list[float] = []
    unet = sd_models.model_data.sd_model.model.diffusion_model
    large = (LARGE["height"] // 8, LARGE["width"] // 8)

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if tuple(args[0].shape[-2:]) == large:
            seen.append(float(args[1].max()))

    handle = unet.register_forward_pre_hook(note, with_kwargs=True)
    try:
        _, told = made(client, {}, sampler_name=sampler, scheduler=scheduler, **LARGE | {"steps": 20})
    finally:
        handle.remove()
    assert DISCRETE.noise(seen[0]) == pytest.approx(
        RESTART_NOISE, abs=0.06
    )  # what 6 or 7 of Exponential's steps come nearest to
    said = told["extra_generation_params"]
    first, second = plan(client, sampler_name=sampler, scheduler=scheduler, **LARGE | {"steps": 20})["passes"]
    assert second["strength"] == said["Denoising strength"]
    assert (first["width"], second["width"], second["height"]) == (120, 192, 256)


def test_hires_fix_of_the_jobs_own_stands(client: TestClient) -> None:
    own = {"width": 128, "height": 128, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "steps": 6}
    pictures, told = made(client, {}, denoising_strength=0.6, **own)
    assert told["extra_generation_params"]["Denoising strength"] == 0.6
    assert pictures == made(client, {"method": "HiDiffusion"}, denoising_strength=0.6, **own)[0]


def test_native_pictures_and_models_without_a_unet_are_left_alone(client: TestClient) -> None:
    native = {"width": 128, "height": 128, "steps": 4}
    pictures, told = made(client, {}, **native)
    assert pictures == made(client, None, **native)[0]
    assert not any(key.startswith(("HiDiffusion", "Hires")) for key in told["extra_generation_params"])


def test_both_passes_have_the_prompts_that_other_extensions_made(
    monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    expected = made(client, {}, **LARGE, prompt="a dog", negative_prompt="a bird")[0]
    original = HiDiffusionScript.process

    def process(self: Any, p: Any, *args: Any) -> None:
        p.all_prompts, p.all_negative_prompts = ["a dog"], ["a bird"]  # as an extension before this one would
        original(self, p, *args)

    monkeypatch.setattr(HiDiffusionScript, "process", process)
    assert made(client, {}, **LARGE)[0] == expected


@pytest.mark.parametrize("more", [{}, {"hr_additional_modules": None}], ids=["reForge", "Forge"])
def test_the_forge_familys_second_pass_has_the_first_ones_guidance(
    monkeypatch: pytest.MonkeyPatch, client: TestClient, more: dict[str, Any]
) -> None:
    expected = made(client, {}, **LARGE)[0]
    jobs: list[Any] = []
    original = HiDiffusionScript.process

    def process(self: Any, p: Any, *args: Any) -> None:
        vars(p).update({"hr_cfg": 1.0, **more})
        original(self, p, *args)
        jobs.append(p)

    monkeypatch.setattr(HiDiffusionScript, "process", process)
    assert made(client, {}, **LARGE)[0] == expected
    (job,) = jobs
    assert job.hr_cfg == job.cfg_scale == 5
    assert getattr(job, "hr_additional_modules", None) == (["Use same choices"] if more else None)


@pytest.mark.parametrize("what", ["arrange", "prepare_prompts"])
def test_what_fails_on_the_way_to_it_costs_no_picture(
    monkeypatch: pytest.MonkeyPatch, client: TestClient, what: str
) -> None:
    expected = made(client, {"method": "HiDiffusion"}, **LARGE)[0]
    original = getattr(script, what)
    jobs: list[Any] = []

    def failing(p: Any, *args: Any) -> None:
        jobs.append(p)
        original(p, *args)
        raise KeyError("hr_something")

    monkeypatch.setattr(script, what, failing)
    pictures, told = made(client, {}, **LARGE)
    assert pictures == expected
    (comment,) = jobs[0].comments
    assert "at once, without a native one first: unexpected: KeyError('hr_something')" in comment
    assert not any(key.startswith("Hires") for key in told["extra_generation_params"])


def test_a_controlnet_that_came_first_leaves_one_pass(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    unet = sd_models.model_data.sd_model.model.diffusion_model
    own = unet.forward
    unet.forward, unet._original_forward = lambda *args, **kwargs: own(*args, **kwargs), own
    try:
        pictures, told = made(client, {}, **LARGE)
        in_one_pass, _ = made(client, {"method": "HiDiffusion"}, **LARGE)
    finally:
        del unet.forward, unet._original_forward
    assert pictures == in_one_pass
    assert AFTER_CONTROLNET in caplog.text
    assert (told["width"], told["height"]) == (192, 256)
    assert told["extra_generation_params"]["HiDiffusion"].startswith("RAU-Net")


def test_a_hires_prompt_counts(client: TestClient) -> None:
    pictures, _ = made(client, {}, **LARGE, hr_prompt="a dog")
    assert pictures != made(client, {}, **LARGE)[0]
    assert pictures != made(client, {}, **LARGE, prompt="a dog")[0]


def test_a_batch_is_that_of_the_same_hires_fix(client: TestClient) -> None:
    """Single pictures can differ from it by roundings in between, as with hires fix."""
    pictures, told = made(client, {}, batch_size=2, **LARGE)
    said = told["extra_generation_params"]
    by_hand = {
        "width": told["width"],
        "height": told["height"],
        "steps": LARGE["steps"],
        "enable_hr": True,
        "hr_resize_x": LARGE["width"],
        "hr_resize_y": LARGE["height"],
        "hr_upscaler": said["Hires upscaler"],
        "hr_second_pass_steps": said["Hires steps"],
        "denoising_strength": said["Denoising strength"],
    }
    assert made(client, {"method": "HiDiffusion"}, batch_size=2, **by_hand)[0] == pictures
    assert pictures[-1] != pictures[-2]


def test_the_plan_shows_both_passes_and_the_whole_jobs_work(client: TestClient) -> None:
    told = plan(client, width=256, height=256, steps=20)
    assert [(one["name"], one["width"], one["steps"]) for one in told["passes"]] == [
        ("First pass", 128, 20),
        ("Hires pass", 256, pytest.approx(6, abs=1)),
    ]
    at_once = plan(client, width=256, height=256, steps=20, method="HiDiffusion")
    assert told["speed_up"] > at_once["speed_up"] > 1
    assert plan(client, width=128, height=128)["mark"] == "nothing to do"


def test_the_upscaler_is_the_settings(client: TestClient) -> None:
    settings = {"override_settings": {"hidiffusion_upscaler": "Nearest"}}
    pictures, told = made(client, {}, **LARGE, **settings)
    assert told["extra_generation_params"]["Hires upscaler"] == "Nearest"
    assert pictures != made(client, {}, **LARGE)[0]
    _, told = made(client, {}, **LARGE, override_settings={"hidiffusion_upscaler": "gone"})
    assert told["extra_generation_params"]["Hires upscaler"] == "Lanczos"


def test_a_host_that_has_lanczos_by_no_name(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forge Neo has "None", which is the same, and models."""
    expected, _ = made(client, {}, **LARGE)
    monkeypatch.setattr(shared, "sd_upscalers", [one for one in shared.sd_upscalers if one.name == "None"])
    pictures, told = made(client, {}, **LARGE)
    assert told["extra_generation_params"]["Hires upscaler"] == "None"
    assert pictures == expected
    assert usual_upscaler() in upscalers()  # what the Settings page offers
