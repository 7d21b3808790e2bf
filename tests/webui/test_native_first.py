"""The method Native first: a large job becomes one with the host's own hires fix, and says so."""

from __future__ import annotations

import itertools
import json
import math
from copy import copy
from pathlib import Path
from typing import Any

import pytest
import server
import torch
from client import decode
from fastapi.testclient import TestClient
from plans import REASON, held
from told import parts_of

from hidiffusion_ext.core import Need, Options, Refused
from hidiffusion_ext.core.native_first import RESTART_NOISE
from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.core.schedule import DISCRETE
from hidiffusion_ext.hosts import native_first, passes
from hidiffusion_ext.hosts.native_first import NO_TIME, upscalers, usual_upscaler
from hidiffusion_ext.webui import infotext, script
from hidiffusion_ext.webui.plan_view import OWN_SECOND_PASS
from hidiffusion_ext.webui.script import AFTER_CONTROLNET, HiDiffusionScript
from modules import processing, sd_models, shared, ui
from modules.infotext_utils import parse_generation_parameters

REPOSITORY = Path(__file__).resolve().parents[2]
LARGE = {"width": 96, "height": 128, "steps": 8}
SAMPLERS = [("Euler a", "Automatic"), ("DPM++ 2M", "Karras"), ("DPM++ SDE", "Exponential"), ("DDIM", "Automatic")]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


@pytest.fixture(scope="module")
def large(client: TestClient) -> list[bytes]:
    """The pictures of a large job with nothing else asked for."""
    return made(client, {}, **LARGE)[0]


def made(client: TestClient, settings: dict[str, Any] | None = None, **payload: Any) -> tuple[list[bytes], Any]:
    """The pixels of a job's pictures and what is told of it; without settings HiDiffusion is off."""
    payload = {"seed": 1, "prompt": "a cat", "sampler_name": "Euler", "cfg_scale": 5, **payload}
    if settings is not None:
        args = [{"enabled": True, "native_size": 64, "method": "Native first", **settings}]
        payload["alwayson_scripts"] = {"HiDiffusion": {"args": args}}
    response = client.post("/sdapi/v1/txt2img", json=payload)
    assert response.status_code == 200, response.text
    pictures = [decode(text) for text in response.json()["images"]]
    return [(picture.size, picture.convert("RGB").tobytes()) for picture in pictures], json.loads(
        response.json()["info"]
    )


def plan(client: TestClient, **query: Any) -> dict[str, Any]:
    query = {"native_size": 64, "method": "Native first", **query}
    response = client.get("/hidiffusion/v1/plan", params=query)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_large_job_is_one_with_hires_fix(client: TestClient) -> None:
    large = LARGE | {"steps": 12}
    pictures, told = made(client, {}, **large)
    assert [size for size, _ in pictures] == [(96, 128)]
    said = told["extra_generation_params"]
    strength = said["Denoising strength"]
    assert (told["width"], told["height"], said["Hires resize"]) == (56, 72, "96x128")
    assert said["Hires upscaler"] == "Lanczos"
    assert said["Hires steps"] in (6, 7)  # its least, or one more
    assert said["HiDiffusion hires"].startswith("MSW-MSA")
    assert said["HiDiffusion Method"] == "Native first"
    assert said["HiDiffusion native first"] == f"56x72, then 96x128 at a strength of {strength}"
    assert not {"HiDiffusion", "HiDiffusion refused"} & set(said)
    by_hand = {
        **large,
        "width": 56,
        "height": 72,
        "enable_hr": True,
        "hr_resize_x": 96,
        "hr_resize_y": 128,
        "hr_upscaler": "Lanczos",
        "hr_second_pass_steps": said["Hires steps"],
        "denoising_strength": strength,
    }
    assert made(client, {}, **by_hand)[0] == pictures  # what a pasted text asks for
    assert made(client, {"method": "HiDiffusion"}, **by_hand)[0] == pictures
    assert made(client, None, **large)[0] != pictures


@pytest.mark.parametrize(("sampler", "scheduler"), SAMPLERS)
def test_the_second_pass_begins_with_the_same_noise_whatever_the_schedule(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, sampler: str, scheduler: str
) -> None:
    seen: list[float] = []
    large = (LARGE["height"] // 8, LARGE["width"] // 8)

    def noted(model: Any, x: torch.Tensor, t: torch.Tensor, cond: Any) -> torch.Tensor:
        if tuple(x.shape[-2:]) == large:
            seen.append(float(t.max()))
        return x * 0.5

    monkeypatch.setattr(type(shared.sd_model), "apply_model", noted)
    _, told = made(client, {}, sampler_name=sampler, scheduler=scheduler, **LARGE | {"steps": 20})
    assert DISCRETE.noise(seen[0]) == pytest.approx(
        RESTART_NOISE, abs=0.06
    )  # what 6 or 7 of Exponential's steps come nearest to
    said = told["extra_generation_params"]
    first, second = plan(client, sampler_name=sampler, scheduler=scheduler, **LARGE | {"steps": 20})["passes"]
    assert second["strength"] == said["Denoising strength"]
    assert (first["width"], second["width"], second["height"]) == (56, 96, 128)


def test_hires_fix_of_the_jobs_own_stands(client: TestClient) -> None:
    own = {"width": 64, "height": 64, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "steps": 6}
    pictures, told = made(client, {}, denoising_strength=0.6, **own)
    assert told["extra_generation_params"]["Denoising strength"] == 0.6
    assert pictures == made(client, {"method": "HiDiffusion"}, denoising_strength=0.6, **own)[0]


def test_native_pictures_and_models_without_a_unet_are_left_alone(client: TestClient) -> None:
    native = {"width": 64, "height": 64, "steps": 4}
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


@pytest.mark.parametrize("more", [{}, {"hr_additional_modules": ["old.vae"]}], ids=["reForge", "Forge"])
def test_the_forge_familys_second_pass_has_the_first_ones_guidance(
    monkeypatch: pytest.MonkeyPatch, client: TestClient, large: list[bytes], more: dict[str, Any]
) -> None:
    jobs: list[Any] = []
    original = HiDiffusionScript.process

    def process(self: Any, p: Any, *args: Any) -> None:
        vars(p).update({"hr_cfg": 1.0, **more})
        original(self, p, *args)
        jobs.append(copy(p))

    monkeypatch.setattr(HiDiffusionScript, "process", process)
    assert made(client, {}, **LARGE)[0] == large
    (job,) = jobs
    assert job.hr_cfg == job.cfg_scale == 5
    assert getattr(job, "hr_additional_modules", None) == (["Use same choices"] if more else None)


def test_what_fails_on_the_way_to_it_costs_no_picture(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    expected = made(client, {"method": "HiDiffusion"}, **LARGE)[0]
    original = script.arrangement
    jobs: list[Any] = []

    def failing(p: Any, options: Options) -> None:
        jobs.append(p)
        original(p, options)
        raise KeyError("hr_something")

    monkeypatch.setattr(script, "arrangement", failing)
    pictures, told = made(client, {}, **LARGE)
    assert pictures == expected
    (comment,) = jobs[0].comments
    assert "at once, without a native one first: unexpected: KeyError('hr_something')" in comment
    assert not any(key.startswith("Hires") for key in told["extra_generation_params"])


REFUSALS = {
    "the Turbo preset is for SDXL-Turbo, this model is SD1.5": ({"preset": "Turbo"}, None),
    "TensorRT takes the place": ({}, "unet"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_what_is_refused_is_refused_before_anything_is_arranged(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    settings, lost = REFUSALS[reason]
    if lost:
        monkeypatch.setattr(passes, "find_model", raising(Refused(reason)))
    pictures, told = made(client, settings, **LARGE)
    assert pictures == made(client, None, **LARGE)[0]
    assert (told["width"], told["height"]) == (LARGE["width"], LARGE["height"])
    said = told["extra_generation_params"]
    assert {key for key in said if key.startswith(("HiDiffusion", "Hires"))} == {"HiDiffusion refused"}
    assert said["HiDiffusion refused"] == reason
    assert plan(client, **settings, **LARGE)["refused"] == reason


def raising(error: Exception) -> Any:
    def function(*_: Any, **__: Any) -> None:
        raise error

    return function


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
    assert (told["width"], told["height"]) == (96, 128)
    assert "RAU-Net" in parts_of(told["extra_generation_params"]["HiDiffusion"])


IDLE = {
    "possible": {
        "hr_prompt": "a dog",
        "hr_negative_prompt": "a bird",
        "hr_sampler_name": "DDIM",
        "hr_scheduler": "Karras",
        "hr_checkpoint_name": "tiny-sdxl",
        "hr_upscaler": "Nearest",
        "hr_second_pass_steps": 2,
        "hr_scale": 3,
        "hr_resize_x": 64,
        "denoising_strength": 0.9,
    },
    "gone": {"hr_sampler_name": "DPM++ 2M Karras", "hr_checkpoint_name": "gone", "hr_upscaler": "gone"},
}


@pytest.mark.parametrize("idle", IDLE)
def test_what_counts_for_nothing_without_hires_fix_counts_for_nothing(client: TestClient, idle: str) -> None:
    size = {**LARGE, "steps": 6}
    (expected, told), (pictures, told_beside_it) = made(client, {}, **size), made(client, {}, **size, **IDLE[idle])
    assert pictures == expected
    assert told_beside_it["infotexts"] == told["infotexts"]


def test_a_second_pass_with_nothing_left_in_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with token merging in it: the picture is made in two passes all the same, says so, and pastes back."""
    monkeypatch.setattr(passes.conflicts, "conflicts", lambda *_: held(Need.TOKENS))
    asked = {"rau_net": False, "faster_second_pass": "Off"}
    pictures, told = made(client, asked, **LARGE | {"steps": 8})
    said = told["extra_generation_params"]
    reason = said["HiDiffusion refused"]
    assert parts_of(reason) == {"MSW-MSA": REASON}
    assert said["HiDiffusion native first"].startswith("56x72, then 96x128 at a strength of ")
    assert (said["HiDiffusion Method"], said["HiDiffusion Native size"]) == ("Native first", "64")
    assert "HiDiffusion hires" not in said
    pasted = parse_generation_parameters(told["infotexts"][0])
    panel = {name: infotext.reader(setting)(pasted) for name, setting in SETTINGS.items()}
    assert Options.from_mapping(panel) == Options.from_mapping(
        {"enabled": True, "method": "Native first", "native_size": 64, **asked}
    )
    same = {"infotext": told["infotexts"][0], "hr_sampler_name": None, "hr_scheduler": None}
    answer = client.post("/sdapi/v1/txt2img", json=same)  # as docs/api.md has it
    assert answer.status_code == 200
    assert [decode(text).convert("RGB").tobytes() for text in answer.json()["images"]] == [p for _, p in pictures]
    first, second = plan(client, **asked, **LARGE)["passes"]
    assert (first["active"], first["width"], first["height"]) == (False, 56, 72)
    assert second["text"] == reason


def test_a_strength_that_is_a_guess_is_told_so(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native_first, "Asking", lambda job: raising(LookupError("no such levels")))
    _, told = made(client, {}, **LARGE)
    said = told["extra_generation_params"]
    assert said["HiDiffusion native first"] == "56x72, then 96x128 at a strength of 0.35 (a guess)"
    assert "the strength is a guess: the host cannot say" in caplog.text
    assert "no such levels" in caplog.text


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
    told = plan(client, width=128, height=128, steps=20)
    assert [(one["name"], one["width"], one["steps"]) for one in told["passes"]] == [
        ("First pass", 64, 16),
        ("Hires pass", 128, pytest.approx(6, abs=1)),
    ]
    assert told["notes"]["method"] == OWN_SECOND_PASS
    at_once = plan(client, width=128, height=128, steps=20, method="HiDiffusion")
    assert "method" not in at_once["notes"]
    assert told["speed_up"] > at_once["speed_up"] > 1
    assert plan(client, width=64, height=64)["mark"] == "nothing to do"


@pytest.mark.parametrize("payload", [{}, {"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, {"cfg_scale": 1}])
def test_with_few_steps_it_is_no_slower_than_a_picture_at_once(client: TestClient, payload: dict[str, Any]) -> None:
    sizes = [(128, 128), (96, 96), (256, 128)]
    for (width, height), steps in itertools.product(sizes, (1, 2, 4, 6, 10)):
        told = plan(client, width=width, height=height, steps=steps, **payload)
        assert told["speed_up"] >= 1
        last = told["passes"][-1]
        assert last["steps"] >= min(6, steps / 2)
        assert bool(told["advice"]) == (len(told["passes"]) == 1)


def test_with_very_few_steps_it_is_one_pass_and_says_so(client: TestClient) -> None:
    few = {"width": 128, "height": 128, "steps": 1}
    told = plan(client, **few)
    assert ([one["name"] for one in told["passes"]], told["advice"]) == (["Picture"], NO_TIME)
    pictures, said = made(client, {}, **few)
    assert pictures == made(client, {"method": "HiDiffusion"}, **few)[0]
    assert not any(key.startswith("Hires") for key in said["extra_generation_params"])
    assert said["extra_generation_params"]["HiDiffusion"] == told["passes"][0]["text"]


def test_the_upscaler_is_the_settings(client: TestClient, large: list[bytes]) -> None:
    settings = {"override_settings": {"hidiffusion_upscaler": "Nearest"}}
    pictures, told = made(client, {}, **LARGE, **settings)
    assert told["extra_generation_params"]["Hires upscaler"] == "Nearest"
    assert pictures != large
    _, told = made(client, {}, **LARGE, override_settings={"hidiffusion_upscaler": "gone"})
    assert told["extra_generation_params"]["Hires upscaler"] == "Lanczos"


def test_a_host_that_has_lanczos_by_no_name(
    client: TestClient, large: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forge Neo has "None", which is the same, and models."""
    monkeypatch.setattr(shared, "sd_upscalers", [one for one in shared.sd_upscalers if one.name == "None"])
    pictures, told = made(client, {}, **LARGE)
    assert told["extra_generation_params"]["Hires upscaler"] == "None"
    assert pictures == large
    assert usual_upscaler() in upscalers()  # what the Settings page offers


def test_the_picture_has_the_size_asked_for_where_the_host_makes_hires_sides_multiples(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Forge Neo, which rounds to the nearest one and cuts nothing off by itself."""

    def rounded(side: float) -> int:
        return math.floor(side / 64 + 0.5) * 64

    def calculate_target_resolution(job: Any) -> None:
        job.hr_upscale_to_x, job.hr_upscale_to_y = rounded(job.hr_resize_x), rounded(job.hr_resize_y)

    monkeypatch.setattr(ui, "sRound", rounded, raising=False)
    monkeypatch.setattr(
        processing.StableDiffusionProcessingTxt2Img, "calculate_target_resolution", calculate_target_resolution
    )
    for width, height in [(128, 192), (136, 200), (120, 152)]:
        ((size, _),), told = made(client, {}, width=width, height=height, steps=8)
        assert size == (width, height)
        assert told["extra_generation_params"]["HiDiffusion native first"].count(f"then {width}x{height} at") == 1
        _, second = plan(client, width=width, height=height, steps=8)["passes"]
        assert (second["width"], second["height"]) == (width, height)


def test_auto_is_native_first_where_a_picture_is_huge_and_pastes_back(client: TestClient) -> None:
    expected, _ = made(client, {"native_size": 32}, **LARGE)
    pictures, told = made(client, {"native_size": 32, "method": "Auto"}, **LARGE)
    assert pictures == expected
    said = told["extra_generation_params"]
    assert said["HiDiffusion native first"].startswith("32x40, then 96x128 at a strength of ")
    assert "HiDiffusion Method" not in said  # it is the default
    same = {"infotext": told["infotexts"][0], "hr_sampler_name": None, "hr_scheduler": None}
    answer = client.post("/sdapi/v1/txt2img", json=same).json()
    assert [decode(text).convert("RGB").tobytes() for text in answer["images"]] == [pixels for _, pixels in expected]
    one_pass, told = made(client, {"method": "Auto"}, **LARGE)
    assert one_pass == made(client, {"method": "HiDiffusion"}, **LARGE)[0]
    assert "HiDiffusion native first" not in told["extra_generation_params"]


def test_auto_makes_one_pass_without_a_word_where_two_would_take_longer(client: TestClient) -> None:
    few = {**LARGE, "steps": 1}
    pictures, told = made(client, {"native_size": 32, "method": "Auto"}, **few)
    assert pictures == made(client, {"native_size": 32, "method": "HiDiffusion"}, **few)[0]
    assert "HiDiffusion native first" not in told["extra_generation_params"]
