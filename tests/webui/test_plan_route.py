"""The plan told before a picture is made is what is done when it is made; the route is behind the host's password."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server
from client import decode
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from told import parts_of, strengths_of

from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.core.words import SETTLED
from hidiffusion_ext.hosts import asking
from hidiffusion_ext.webui import plan_route
from hidiffusion_ext.webui.account import Account
from hidiffusion_ext.webui.plan_view import AUTO_ONE, AUTO_TWO

REPOSITORY = Path(__file__).resolve().parents[2]
PATH = plan_route.PATH
NATIVE = {"native_size": 128}
KNOWN = [*plan_route.JOB, *SETTINGS, *plan_route.NAMES]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


@pytest.fixture
def without_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in no time: so what is said as each pass begins, with its own schedule, is what stays said."""
    from modules import shared

    monkeypatch.setattr(type(shared.sd_model), "apply_model", lambda self, x, *args, **kwargs: x * 0.5)
    monkeypatch.setattr(Account, "_say", lambda self: None)


def plan(client: TestClient, **query: Any) -> dict[str, Any]:
    response = client.get(PATH, params=query)
    assert response.status_code == 200, response.text
    return response.json()


def made(client: TestClient, tab: str = "txt2img", settings: dict[str, Any] = NATIVE, **payload: Any) -> dict[str, Any]:
    """What the infotext of a picture says."""
    payload = {"steps": 5, "seed": 1, "prompt": "a cat", **payload}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, **settings}]}}
    response = client.post(f"/sdapi/v1/{tab}", json=payload)
    assert response.status_code == 200, response.text
    return json.loads(response.json()["info"])["extra_generation_params"]


def test_what_is_told_is_what_is_done(client: TestClient) -> None:
    size = {"width": 256, "height": 192, "steps": 5}
    (told,) = plan(client, **size, **NATIVE)["passes"]
    assert made(client, **size)["HiDiffusion"] == told["text"]
    assert parts_of(told["text"]) == {"RAU-Net": (1, 2, 5), "MSW-MSA": WHOLE}
    assert (told["active"], told["preset"], told["area"], len(told["work"])) == (True, "2x", 3.0, 5)
    assert told["speed_up"] > 1


@pytest.mark.usefixtures("without_layers")
@pytest.mark.parametrize(
    "hires",
    [
        {"hr_scale": 2},
        {"hr_scale": 1.5, "hr_second_pass_steps": 6},
        {"hr_resize_x": 256},
        {"hr_resize_y": 256},
        {"hr_resize_x": 256, "hr_resize_y": 320},
    ],
)
def test_a_hires_pass_has_the_size_and_steps_the_host_gives_it(client: TestClient, hires: dict[str, Any]) -> None:
    job = {"width": 128, "height": 192, "steps": 5, "enable_hr": True, "denoising_strength": 0.7, **hires}
    first, second = plan(client, **job, **NATIVE)["passes"]
    assert (first["name"], second["name"]) == ("First pass", "Hires pass")
    assert (first["active"], first["native"], first["area"]) == (False, 128, 1.5)
    said = made(client, **job, hr_upscaler="Latent")
    assert said.get("HiDiffusion") is None
    assert second["text"] == said["HiDiffusion hires"]


def schedules() -> Iterator[Any]:
    """Every sampler with some of the schedulers; the others are for longer runs."""
    from modules import sd_samplers, sd_schedulers

    for i, sampler in enumerate(sd_samplers.visible_sampler_names()):
        for j, scheduler in enumerate(sd_schedulers.schedulers):
            yield pytest.param(sampler, scheduler.label, marks=() if i % 5 == j % 5 else pytest.mark.slow)


@pytest.mark.usefixtures("without_layers")
@pytest.mark.parametrize(("sampler_name", "scheduler"), list(schedules()))
def test_the_steps_told_are_those_done_with_every_sampler_and_schedule(
    client: TestClient, sampler_name: str, scheduler: str
) -> None:
    job = {"width": 128, "height": 96, "steps": 7, "sampler_name": sampler_name, "scheduler": scheduler}
    job |= {"enable_hr": True, "hr_scale": 1.25, "denoising_strength": 0.7}
    settings = {"native_size": 64, "t1": 0.55, "t2": 0.25}
    first, second = plan(client, **job, **settings)["passes"]
    said = made(client, settings=settings, **job, hr_upscaler="Latent")
    assert (first["text"], second["text"]) == (said["HiDiffusion"], said["HiDiffusion hires"])
    assert "about" not in first["text"] + second["text"]


@pytest.mark.usefixtures("without_layers")
def test_the_hires_pass_may_have_another_sampler_and_schedule(client: TestClient) -> None:
    job = {"width": 256, "height": 192, "steps": 7, "enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.9}
    same = plan(
        client, **job, scheduler="Karras", hr_sampler_name="Use same sampler", hr_scheduler="Use same scheduler"
    )
    assert same == plan(client, **job, scheduler="Karras")
    other = {**job, "scheduler": "Karras", "hr_scheduler": "Exponential", "hr_sampler_name": "DPM++ 2M"}
    first, second = plan(client, **other, **NATIVE)["passes"]
    said = made(client, **other, hr_upscaler="Latent")
    assert (first["text"], second["text"]) == (said["HiDiffusion"], said["HiDiffusion hires"])
    assert second["text"] != plan(client, **job, scheduler="Karras", **NATIVE)["passes"][1]["text"]


def test_a_guess_says_about(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules import sd_samplers

    asking._answers.clear()
    monkeypatch.setattr(sd_samplers, "create_sampler", None)
    (told,) = plan(client, width=256, height=192, steps=5, **NATIVE)["passes"]
    assert parts_of(told["text"].replace("about ", "", 1)) == {"RAU-Net": (1, 2, 5), "MSW-MSA": WHOLE}
    assert "about" in told["text"]
    (told,) = plan(client, width=256, height=192, steps=5, denoising_strength=0.05, **NATIVE)["passes"]
    assert parts_of(told["text"]) == {"MSW-MSA": WHOLE, "RAU-Net": SETTLED}


def test_asking_changes_nothing_in_the_host(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import k_diffusion.sampling
    import torch

    from modules import shared

    before = k_diffusion.sampling.torch, torch.get_rng_state(), vars(shared.state).copy(), shared.opts.data.copy()
    called = []
    monkeypatch.setattr(type(shared.sd_model), "apply_model", lambda *args, **kwargs: called.append(args))
    for sampler_name, scheduler in (each.values for each in schedules() if not each.marks):
        plan(client, width=256, height=192, sampler_name=sampler_name, scheduler=scheduler, **NATIVE)
    after = k_diffusion.sampling.torch, torch.get_rng_state(), vars(shared.state), shared.opts.data
    assert (before[0], before[2:]) == (after[0], after[2:])
    assert torch.equal(before[1], after[1])
    assert not called


def test_notes_stand_beside_the_controls(client: TestClient) -> None:
    size = {"width": 256, "height": 256, **NATIVE}
    told = plan(client, **size)
    assert told["notes"]["t1"] == "The preset has 0.4 at 256x256."
    assert told["notes"]["t2"] == "The preset has none at 256x256."
    assert set(told["without_effect"]) == {"dispersion", "damped_guidance", "split_guidance", "anchor"}
    assert told["notes"]["dispersion"] == "Not used: only with the method ScaleCrafter."
    larger = plan(client, **size, enable_hr=True, hr_scale=2)
    assert set(larger["without_effect"]) == {"dispersion", "damped_guidance"}
    over_it = plan(client, **size, denoising_strength=0.4, split_guidance=2, faster_second_pass="Off")
    text = over_it["passes"][0]["text"]
    assert (parts_of(text)["split guidance"], strengths_of(text)) == (WHOLE, {"split guidance": 2})
    assert "anchor" not in over_it["without_effect"]
    assert larger["notes"]["t1"] == "The preset has 0.4 at 256x256. The preset has 0.4 at 512x512."
    scalecrafter = plan(client, **size, method="ScaleCrafter", msw_msa="false")
    idle = {"rau_net", "t2", "dispersion", "damped_guidance", "window_shift", "split_guidance", "anchor"}
    assert set(scalecrafter["without_effect"]) == idle
    both = plan(client, **size, method="ScaleCrafter", enable_hr=True, hr_scale=2)
    assert set(both["without_effect"]) == {"rau_net", "t2"}
    alone = plan(client, **size, rau_net="false")
    assert alone["notes"]["t1"] == "Not used: RAU-Net is off."
    assert "t1" not in plan(client, width=128, height=128, **NATIVE)["notes"]


@pytest.mark.usefixtures("without_layers")
@pytest.mark.parametrize("first", [(128, 128), (128, 192), (192, 128)])
@pytest.mark.parametrize("target", [(128, 192), (256, 192), (200, 264), (0, 256), (256, 0), (184, 0)])
def test_a_hires_pass_has_the_size_that_is_sampled(
    client: TestClient, first: tuple[int, int], target: tuple[int, int]
) -> None:
    """Of another aspect than the first pass, the host cuts off what is too much."""
    job = {"width": first[0], "height": first[1], "steps": 2, "enable_hr": True, "denoising_strength": 0.6}
    job |= {"hr_resize_x": target[0], "hr_resize_y": target[1]}
    second = plan(client, **job, **NATIVE)["passes"][1]
    answer = client.post(
        "/sdapi/v1/txt2img", json={**job, "hr_upscaler": "Lanczos", "sampler_name": "Euler", "seed": 1}
    )
    picture = decode(answer.json()["images"][-1])
    assert (second["width"], second["height"]) == picture.size


def test_img2img_has_the_steps_its_strength_leaves(client: TestClient) -> None:
    (told,) = plan(client, width=128, height=128, scale_by=2, steps=10, denoising_strength=0.5, **NATIVE)["passes"]
    assert (told["width"], told["height"], told["steps"]) == (256, 256, 6)


def test_resize_by_is_rounded_as_the_host_rounds_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def size() -> tuple[int, int]:
        (told,) = plan(client, width=256, height=250, scale_by=1.3, denoising_strength=0.5, **NATIVE)["passes"]
        return told["width"], told["height"]

    assert size() == (332, 325)
    monkeypatch.setattr(
        plan_route.ui, "sRound", lambda side: math.floor(side / 64 + 0.5) * 64, raising=False
    )  # Forge Neo
    assert size() == (320, 320)


def test_three_times_the_side_from_noise_alone_gets_an_advice(client: TestClient) -> None:
    large, one_pass = {"width": 384, "height": 384}, {"method": "HiDiffusion", **NATIVE}
    assert "better with the method Native first" in plan(client, **large, **one_pass)["advice"]
    assert plan(client, width=384, height=376, **one_pass)["advice"] == ""
    assert plan(client, **large, method="Native first", **NATIVE)["advice"] == ""
    assert plan(client, **large, denoising_strength=0.3, **one_pass)["advice"] == ""
    hires = {"width": 128, "height": 128, "enable_hr": True, "hr_scale": 4, "denoising_strength": 0.3}
    assert plan(client, **hires, **one_pass)["advice"] == ""


def test_auto_takes_two_passes_from_three_times_the_side_on_and_says_so(client: TestClient) -> None:
    for height, method, said in ((384, "Native first", AUTO_TWO), (376, "HiDiffusion", AUTO_ONE)):
        auto, chosen = (plan(client, width=384, height=height, **NATIVE, **asked) for asked in ({}, {"method": method}))
        assert auto["passes"] == chosen["passes"]
        assert len(auto["passes"]) == (2 if method == "Native first" else 1)
        assert auto["advice"] == ""
        assert auto["notes"]["method"].startswith(said)
    for other in ({"enable_hr": True, "hr_scale": 2, "denoising_strength": 0.5}, {"width": 128, "height": 128}):
        assert "method" not in plan(client, **{"width": 256, "height": 256, **NATIVE, **other})["notes"]


def test_why_nothing_is_done(client: TestClient) -> None:
    assert plan(client, width=512, height=512)["mark"] == "nothing to do"
    turbo = plan(client, width=256, height=256, preset="Turbo", **NATIVE)
    assert "Turbo" in turbo["refused"]
    assert (turbo["mark"], turbo["passes"]) == ("cannot be used", [])
    weak = {"steps": 10, "denoising_strength": 0.3, "msw_msa": "false", "faster_second_pass": "Off"}
    (told,) = plan(client, width=256, height=256, **weak, **NATIVE)["passes"]
    assert not told["active"]
    assert SETTLED in told["text"]


def test_the_model_is_named_and_never_loaded(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from modules import sd_models

    assert plan(client, model="tiny-sd1")["model"] == "SD1.5 (tiny-sd1)"
    refused = client.get(PATH, params={"model": "tiny-sdxl"})
    assert (refused.status_code, "in memory is tiny-sd1" in refused.json()["detail"]) == (422, True)
    monkeypatch.setattr(sd_models.model_data, "sd_model", None)
    assert "no model is in memory" in plan(client)["refused"]
    assert sd_models.model_data.sd_model is None


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"width": "abc"}, "width = 'abc' is not possible; allowed is a whole number from 1 to 16384"),
        ({"steps": "0"}, "steps = 0 is not possible; allowed is a whole number from 1 to 1000"),
        ({"enable_hr": "maybe"}, "enable_hr = 'maybe' is not possible; allowed is true or false"),
        ({"t1": "2"}, "t1 = 2 is not possible; allowed is a number from 0 to 1"),
        ({"t3": "2"}, "unknown parameter 't3'; allowed are width,"),
    ],
)
def test_bad_values_get_a_sentence(client: TestClient, query: dict[str, str], sentence: str) -> None:
    response = client.get(PATH, params=query)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(sentence)


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from([*plan_route.JOB, *SETTINGS, *plan_route.NAMES]), st.text(max_size=8) | st.just("2")
    )
)
def test_whatever_is_asked_is_answered(client: TestClient, query: dict[str, str]) -> None:
    assert client.get(PATH, params=query).status_code in (200, 422)


def test_only_reading_is_possible(client: TestClient) -> None:
    assert client.post(PATH).status_code in (404, 405)
    paths = {route.path for route in client.app.routes if "/hidiffusion/" in getattr(route, "path", "")}  # type: ignore[attr-defined]
    assert paths == {PATH}
    assert {
        parameter["name"] for parameter in client.get("/openapi.json").json()["paths"][PATH]["get"]["parameters"]
    } > {
        "width",
        "t1",
        "model",
    }


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> Iterator[TestClient]:
    """The host with --api-auth, after Reload UI."""
    from modules import shared

    monkeypatch.setattr(shared.cmd_opts, "api_auth", "user:secret")
    yield TestClient(server.reload_app())
    monkeypatch.undo()
    server.reload_app()


def test_the_hosts_password_is_asked_for(locked: TestClient) -> None:
    assert locked.get("/sdapi/v1/options").status_code == 401
    assert locked.get(PATH).status_code == 401
    assert locked.get(PATH, auth=("user", "wrong")).status_code == 401
    assert locked.get(PATH, headers={"X-HiDiffusion-Page": ""}).status_code == 401
    assert locked.get(PATH, auth=("user", "secret")).status_code == 200
    assert locked.get(PATH, headers={"X-HiDiffusion-Page": plan_route.PAGE_KEY}).status_code == 200


def test_controls_are_in_the_order_of_the_settings(client: TestClient) -> None:
    from modules import scripts

    script = scripts.scripts_txt2img.script("hidiffusion")
    assert script is not None
    assert script.controls is not None
    ids = [control.elem_id.removeprefix("script_txt2img_hidiffusion_") for control in script.controls]
    assert ids == ["panel-checkbox", *list(SETTINGS)[1:]]
    for control, setting in zip(script.controls[1:], list(SETTINGS.values())[1:]):
        folded = control.parent
        while folded is not None and folded.elem_id != "script_txt2img_hidiffusion_advanced":
            folded = folded.parent
        assert (folded is not None) == setting.advanced, setting.name
