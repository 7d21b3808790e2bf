"""A batch split over several WebUIs, as sd-webui-distributed (papuSpartan, commit 8fd65eb) splits it.

What that extension does to a job between the page and a worker is done again here, step by step; the worker is the
stand-in's API. `docs/many-machines.md` tells users how.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import server
from client import decode
from fastapi.testclient import TestClient

from hidiffusion_ext.core.options import SETTINGS
from modules import scripts, shared
from modules.processing import StableDiffusionProcessingTxt2Img, process_images

REPOSITORY = Path(__file__).resolve().parents[2]
NATIVE = {"native_size": 64}
Pictures = tuple[list[np.ndarray], list[str]]


@pytest.fixture(scope="module")
def worker() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


def job(options: list[Any], batch_size: int, seed: int = 7) -> Any:
    """A job of the main machine's page; what is not given has the value the page starts with."""
    runner = scripts.scripts_txt2img
    arguments = [0, *(getattr(control, "value", None) for control in runner.inputs[1:])]
    script = runner.script("HiDiffusion")
    arguments[script.args_from : script.args_from + len(options)] = options
    fields = {"prompt": "a cat", "negative_prompt": "dog", "seed": seed, "steps": 4, "width": 96, "height": 128}
    p = StableDiffusionProcessingTxt2Img(**fields, sampler_name="Euler a", cfg_scale=5.0, batch_size=batch_size)
    p.scripts, p.script_args = runner, tuple(arguments)
    return p


def payload(p: Any, before: int, count: int, known: list[str]) -> dict[str, Any]:
    """What a worker is sent for `count` of the job's pictures that follow `before` others.

    Args:
        p: The job, in the hook `before_process`.
        before: How many pictures other machines make before these.
        count: How many this one makes.
        known: The scripts the worker has; others are left out.
    """
    always = [script for script in p.scripts.scripts if script.alwayson]
    packed = {script.title(): {"args": [*p.script_args[script.args_from : script.args_to]]} for script in always}
    sent = {key: value for key, value in vars(p).items() if key not in ("script_args_value", "scripts_value")}
    sent = copy.deepcopy(sent | {"scripts": None, "alwayson_scripts": packed, "seed": p.seed, "subseed": 0})
    sent["batch_size"] = count
    sent["subseed"] += before
    sent["seed"] += before if sent["subseed_strength"] == 0 else 0
    for cache in ("cached_uc", "cached_c", "uc", "c", "cached_hr_c", "cached_hr_uc"):
        sent.pop(cache, None)
    sent["alwayson_scripts"] = {title: value for title, value in packed.items() if title.lower() in known}
    sent["sampler_index"] = sent["sampler_name"]
    return json.loads(json.dumps(sent))


def made_here(options: list[Any], batch_size: int, seed: int = 7) -> Pictures:
    processed = process_images(job(options, batch_size, seed))
    return [np.asarray(image) for image in processed.images], processed.infotexts


def made_by(worker: TestClient, sent: dict[str, Any]) -> Pictures:
    answer = worker.post("/sdapi/v1/txt2img", json=sent).json()
    return [np.asarray(decode(image)) for image in answer["images"]], json.loads(answer["info"])["infotexts"]


def known(worker: TestClient) -> list[str]:
    """The scripts of a worker, as it tells them."""
    return [s["name"] for s in worker.get("/sdapi/v1/script-info").json() if s["is_alwayson"] and not s["is_img2img"]]


def difference(a: list[np.ndarray], b: list[np.ndarray]) -> int:
    assert len(a) == len(b)
    return max(int(np.abs(x.astype(int) - y.astype(int)).max()) for x, y in zip(a, b))


PAGE = [True, "HiDiffusion", True, True, False, True, "Auto", 0.4, 0.0, "Both", 64, "Cycle"]


@pytest.mark.parametrize(
    "options",
    [PAGE, [{"enabled": True, "method": "ScaleCrafter", "t1": 0.5, **NATIVE}], [False]],
    ids=["page", "program", "off"],
)
def test_a_batch_split_over_two_machines_is_the_batch_of_one(worker: TestClient, options: list[Any]) -> None:
    whole, whole_infotexts = made_here(options, 4)
    first, first_infotexts = made_here(options, 2)
    sent = payload(job(options, 4), before=2, count=2, known=known(worker))
    second, second_infotexts = made_by(worker, sent)
    assert difference(second, made_here(options, 2, seed=9)[0]) == 0
    assert difference(whole, first + second) <= 1  # kernels round differently for another batch size, off or on
    assert first_infotexts + second_infotexts == whole_infotexts
    assert all(("HiDiffusion: " in text) == (options != [False]) for text in whole_infotexts)


def test_a_worker_without_the_extension_shows_in_the_infotext(worker: TestClient) -> None:
    sent = payload(job(PAGE, 4), before=2, count=2, known=[])
    pictures, infotexts = made_by(worker, sent)
    assert not any("HiDiffusion" in text for text in infotexts)
    assert difference(pictures, made_here([False], 4)[0][2:]) <= 1


def test_the_settings_of_a_worker_do_not_matter(worker: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = payload(job(PAGE, 4), before=2, count=2, known=known(worker))
    arguments = sent["alwayson_scripts"]["HiDiffusion"]["args"]
    assert len(arguments) == len(SETTINGS)
    expected, _ = made_by(worker, sent)
    monkeypatch.setitem(shared.opts.data, "hidiffusion_msw_msa", False)
    monkeypatch.setitem(shared.opts.data, "hidiffusion_preset", "4x")
    other = TestClient(server.reload_app())
    assert difference(made_by(other, sent)[0], expected) == 0
