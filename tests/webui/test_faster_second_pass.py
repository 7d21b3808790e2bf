"""What is left out of jobs with a hires pass: steps, guidance and deeper levels; and what is said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from client import decode, encode
from job_host import HIRES, Host
from told import parts_of

from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.parts.guidance_interval import LEAST_SIGMA
from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.hosts.guiding import CFG_SCALE_1, LEVEL_IS_SET
from modules import sd_models, shared

JOB = {
    **HIRES,
    "hr_upscaler": "Lanczos",
    "sampler_name": "Euler",
    "denoising_strength": 0.4,
    "steps": 12,
    "cfg_scale": 5,
}
FIRST, SECOND = 8, 16
"""Cells of a side of the latent in each pass of such a job."""

ALL, OFF = FasterSecondPass.ON.value, FasterSecondPass.OFF.value
SHORT, INTERVAL = FasterSecondPass.SHORT.value, FasterSecondPass.INTERVAL.value


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@contextmanager
def calls() -> Generator[list[tuple[int, int, float]], None, None]:
    """The calls of the UNet: rows, height in cells, and noise."""
    seen: list[tuple[int, int, float]] = []

    def note(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x, timesteps = args[0], args[1] if len(args) > 1 else kwargs["timesteps"]
        seen.append((len(x), x.shape[-2], float(timesteps.max())))

    unet = sd_models.model_data.sd_model.model.diffusion_model
    handle = unet.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def made(host: Host, faster: str, **payload: Any) -> tuple[str, dict[str, Any], list[tuple[int, int, float]]]:
    """The pictures of a job with MSW-MSA, what its texts say, and its calls of the UNet."""
    with calls() as seen:
        pictures, noted, comments = host.job({"rau_net": False, "faster_second_pass": faster}, **{**JOB, **payload})
    assert not comments
    return digest(pictures), noted, seen


def digest(pictures: list[bytes]) -> str:
    return hashlib.sha256(b"".join(pictures)).hexdigest()


def test_no_guidance_at_the_end_is_what_the_hosts_own_setting_does(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = encode(np.random.default_rng(0).integers(256, size=(128, 128, 3), dtype=np.uint8))

    def over(faster: str, **payload: Any) -> tuple[str, dict[str, Any]]:
        settings = {"enabled": True, "native_size": 64, "rau_net": False, "faster_second_pass": faster}
        payload |= {"seed": 1, "prompt": "a cat", "sampler_name": "Euler", "steps": 20, "denoising_strength": 0.4}
        payload |= {"width": 128, "height": 128}
        payload |= {"init_images": [picture], "alwayson_scripts": {"HiDiffusion": {"args": [settings]}}}
        answer = host.client.post("/sdapi/v1/img2img", json=payload).json()
        return digest([decode(answer["images"][0]).tobytes()]), json.loads(answer["info"])["extra_generation_params"]

    with calls() as seen:
        unguided, noted = over(INTERVAL)
    rows = [count for count, _, _ in seen]
    assert rows == sorted(rows, reverse=True)
    assert {*rows} == {1, 2}
    interval = (rows.index(1) + 1, len(rows), len(rows))
    assert parts_of(noted["HiDiffusion"]) == {"MSW-MSA": WHOLE, "guidance interval": interval}
    assert not {"NGMS", "NGMS all steps"} & {*noted}
    guided, plain = over(OFF)
    assert guided != unguided
    assert parts_of(plain["HiDiffusion"]) == {"MSW-MSA": WHOLE}
    monkeypatch.setitem(vars(shared.opts), "s_min_uncond_all", True)
    assert over(OFF, s_min_uncond=LEAST_SIGMA)[0] == unguided


def test_it_leaves_neither_setting_nor_text_behind(host: Host) -> None:
    before = dict(vars(shared.opts))
    pictures, noted, _ = made(host, INTERVAL)
    assert dict(vars(shared.opts)) == before
    response = host.client.post("/sdapi/v1/txt2img", json={**JOB, "seed": 1, "prompt": "a cat"})
    assert "NGMS" not in response.text
    assert made(host, INTERVAL)[:2] == (pictures, noted)


def test_without_guidance_there_is_none_to_leave_out(host: Host) -> None:
    _, noted, _ = made(host, INTERVAL, cfg_scale=1, hr_cfg=1)
    assert parts_of(noted["HiDiffusion hires"]) == {"MSW-MSA": WHOLE, "guidance interval": CFG_SCALE_1}


def test_the_users_own_level_stands(host: Host) -> None:
    pictures, noted, seen = made(host, INTERVAL, s_min_uncond=0.01)
    assert parts_of(noted["HiDiffusion hires"]) == {"MSW-MSA": WHOLE, "guidance interval": LEVEL_IS_SET}
    assert {rows for rows, height, _ in seen if height == SECOND} == {2}
    assert pictures == made(host, OFF, s_min_uncond=0.01)[0]


@pytest.fixture
def without_layers(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """UNets answer in no time, where calls are counted and nobody looks at pictures."""
    unet = sd_models.model_data.sd_model.model.diffusion_model
    monkeypatch.setattr(type(unet), "forward", lambda self, x, *_, **__: x * 0.5)


@pytest.mark.usefixtures("without_layers")
@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "DDIM"])
def test_the_first_pass_ends_where_the_second_draws_anew(host: Host, sampler: str) -> None:
    _, whole, seen = made(host, OFF, sampler_name=sampler)
    assert "HiDiffusion first pass" not in whole
    steps = {noise for _, height, noise in seen if height == FIRST}
    _, noted, short = made(host, SHORT, sampler_name=sampler)
    made_steps, _, of = noted["HiDiffusion first pass"].partition(" of ")
    assert of in ("12 steps", "11 steps")  # DDIM makes one less than it is asked for
    fewer = {noise for _, height, noise in short if height == FIRST}
    assert fewer < steps
    if len(steps) <= 12:
        assert len(fewer) == int(made_steps) < len(steps) == int(of.split()[0])
        assert min(fewer) > max(steps - fewer)
    assert [call for call in short if call[1] == SECOND] == [call for call in seen if call[1] == SECOND]


def test_all_of_it_and_pasted_back(host: Host) -> None:
    pictures, noted, seen = made(host, ALL)
    told = parts_of(noted["HiDiffusion hires"])
    assert told.keys() == {"MSW-MSA", "DeepCache", "guidance interval"}
    assert not any(isinstance(reason, str) for reason in told.values())
    assert "HiDiffusion first pass" in noted
    assert "HiDiffusion Faster second pass" not in noted  # the default
    _, slower, more = made(host, OFF)
    assert "HiDiffusion first pass" not in slower
    assert slower["HiDiffusion Faster second pass"] == OFF
    assert len(seen) < len(more)
    assert made(host, ALL)[0] == pictures


def test_a_native_first_job_is_its_text_pasted_as_hires_fix(host: Host) -> None:
    large = {"width": 128, "height": 128, "steps": 20, "sampler_name": "Euler", "cfg_scale": 5}
    settings = {"method": "Native first", "faster_second_pass": ALL}
    first, noted, _ = host.job(settings, **large)
    assert "HiDiffusion first pass" in noted
    info = host.client.post(
        "/sdapi/v1/txt2img",
        json={
            "seed": 1,
            "prompt": "a cat",
            **large,
            "alwayson_scripts": {"HiDiffusion": {"args": [{"enabled": True, "native_size": 64, **settings}]}},
        },
    ).json()["info"]
    said = json.loads(info)["extra_generation_params"]
    by_hand = {
        **large,
        "width": 64,
        "height": 64,
        "enable_hr": True,
        "hr_resize_x": 128,
        "hr_resize_y": 128,
        "hr_upscaler": "Lanczos",
        "hr_second_pass_steps": said["Hires steps"],
        "denoising_strength": said["Denoising strength"],
    }
    pictures, again, _ = host.job(settings, **by_hand)
    assert digest(pictures) == digest(first)
    assert again["HiDiffusion first pass"] == noted["HiDiffusion first pass"]


@pytest.mark.usefixtures("without_layers")
def test_a_refiner_takes_over_at_a_step_of_the_whole_pass(host: Host) -> None:
    _, noted, _ = made(host, SHORT, refiner_checkpoint="none", refiner_switch_at=0.8)
    assert "HiDiffusion first pass" in noted
    other = sd_models.CHECKPOINTS[1].title
    with calls() as seen:
        host.job({"faster_second_pass": SHORT}, **{**JOB, "refiner_checkpoint": other, "refiner_switch_at": 0.8})
    assert len({noise for _, height, noise in seen if height == FIRST}) == 12


@pytest.mark.usefixtures("without_layers")
def test_a_first_picture_that_is_saved_is_finished(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(shared.opts), "save_images_before_highres_fix", True)
    _, noted, seen = made(host, SHORT)
    assert "HiDiffusion first pass" not in noted
    assert len({noise for _, height, noise in seen if height == FIRST}) == 12


def test_a_small_hires_pass_leaves_the_first_one_whole(host: Host) -> None:
    pictures, noted, _ = host.job({"native_size": 512, "faster_second_pass": ALL}, **JOB)
    assert not {key for key in noted if key.startswith("HiDiffusion")}
    assert digest(pictures) == digest(host.job(None, **JOB)[0])


def test_the_plan_tells_it(host: Host) -> None:
    query = {"native_size": 64, "width": 64, "height": 64, "steps": 20, "enable_hr": True, "hr_scale": 2}
    query |= {"denoising_strength": 0.4, "sampler_name": "Euler"}
    answers = {
        faster: host.client.get("/hidiffusion/v1/plan", params={**query, "faster_second_pass": faster}).json()
        for faster in (OFF, ALL)
    }
    assert answers[ALL]["speed_up"] > 1.3 * answers[OFF]["speed_up"]
    assert answers[ALL]["passes"][0]["steps"] < answers[OFF]["passes"][0]["steps"] == 20
    assert parts_of(answers[ALL]["passes"][1]["text"])["DeepCache"] == WHOLE
