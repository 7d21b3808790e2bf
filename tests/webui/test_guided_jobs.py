"""Split guidance and the anchor in jobs of the stand-in: hires passes and img2img, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import server
from client import decode, encode
from fastapi.testclient import TestClient
from PIL.Image import Image
from told import parts_of, strengths_of

from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.core.words import SETTLED
from hidiffusion_ext.hosts.guiding import CFG_SCALE_1, OVER_NOISE

REPOSITORY = Path(__file__).resolve().parents[2]
HIRES = {"width": 64, "height": 64, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "cfg_scale": 5}
WHOLE_PASS = {"faster_second_pass": "Off"}
GUIDED = {"split_guidance": 3.0, "anchor": 0.5}
STRENGTHS = {"split guidance": 3.0, "anchor": 0.5}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


def made(client: TestClient, settings: dict[str, Any], **payload: Any) -> tuple[list[Image], dict[str, Any]]:
    """The pictures of a job, without their texts, and what their infotext says."""
    tab = "img2img" if "init_images" in payload else "txt2img"
    payload = {"steps": 4, "seed": 1, "prompt": "a cat", "denoising_strength": 0.5, "sampler_name": "Euler", **payload}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, "native_size": 64, **settings}]}}
    response = client.post(f"/sdapi/v1/{tab}", json=payload)
    assert response.status_code == 200, response.text
    pictures = [decode(text).convert("RGB") for text in response.json()["images"]]
    for picture in pictures:
        picture.info.clear()
    return pictures, json.loads(response.json()["info"])["extra_generation_params"]


def test_a_hires_pass_is_guided_and_says_so(client: TestClient) -> None:
    plain, said = made(client, WHOLE_PASS, **HIRES)
    late = parts_of(said["HiDiffusion hires"])
    assert late == {"MSW-MSA": WHOLE, "RAU-Net": SETTLED}
    for guidance, strengths in [
        ({"split_guidance": 3.0}, {"split guidance": 3}),
        ({"anchor": 0.5}, {"anchor": 0.5}),
        (GUIDED, STRENGTHS),
    ]:
        settings = {**WHOLE_PASS, **guidance}
        pictures, said = made(client, settings, **HIRES)
        assert pictures != plain
        assert parts_of(said["HiDiffusion hires"]) == late | dict.fromkeys(strengths, WHOLE)
        assert strengths_of(said["HiDiffusion hires"]) == strengths
        assert pictures == made(client, settings, **HIRES)[0]
    assert made(client, WHOLE_PASS, **HIRES)[0] == plain


def test_neutral_strengths_and_no_guidance_change_nothing(client: TestClient) -> None:
    plain, _ = made(client, {}, **HIRES)
    assert made(client, {"split_guidance": 1.0, "anchor": 0.0}, **HIRES)[0] == plain
    unguided = {**HIRES, "cfg_scale": 1}
    pictures, said = made(client, GUIDED, **unguided)
    assert pictures == made(client, {}, **unguided)[0]
    told = parts_of(said["HiDiffusion hires"])
    assert told["split guidance"] == told["anchor"] == CFG_SCALE_1


def test_a_picture_does_not_depend_on_its_batch(client: TestClient) -> None:
    """But for the last digit of sums that are added up in another order: one level of 255 in one of a hundred."""
    alone = made(client, GUIDED, **HIRES)[0][-1]
    first, second = (
        np.abs(np.asarray(picture, int) - np.asarray(alone, int))
        for picture in made(client, GUIDED, batch_size=2, **HIRES)[0][-2:]
    )
    assert first.max() <= 1
    assert (first > 0).mean() <= 0.01
    assert second.max() > 10


def test_img2img_is_guided_too_and_a_pass_from_noise_is_not(client: TestClient) -> None:
    large = {"width": 128, "height": 128}
    picture = made(client, {}, **large)[0][0]
    over_it = {**large, "init_images": [encode(np.asarray(picture))]}
    pictures, said = made(client, GUIDED, **over_it)
    assert strengths_of(said["HiDiffusion"]) == STRENGTHS
    assert pictures != made(client, {}, **over_it)[0]
    again, said = made(client, GUIDED, **large)
    assert again == made(client, {}, **large)[0]
    assert parts_of(said["HiDiffusion"]).keys() == {"RAU-Net", "MSW-MSA"}


def test_the_anchor_is_left_out_where_the_sampler_works_with_noise(client: TestClient) -> None:
    ddim = {**HIRES, "sampler_name": "DDIM"}
    pictures, said = made(client, GUIDED, **ddim)
    assert parts_of(said["HiDiffusion hires"])["anchor"] == OVER_NOISE
    assert pictures == made(client, {"split_guidance": 3.0}, **ddim)[0]
    assert pictures != made(client, {}, **ddim)[0]
