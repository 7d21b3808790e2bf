"""The extension in two folders, as after a download beside a clone: one of them works, and it is said which."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import server
from fastapi.testclient import TestClient

from modules import scripts

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[list[Path]]:
    second = tmp_path / "sd-webui-hidiffusion-main"
    for folder in ("scripts", "hidiffusion_ext"):
        shutil.copytree(REPOSITORY / folder, second / folder)
    yield [REPOSITORY, second]
    server.create_app([REPOSITORY])


def made(app: object) -> tuple[str, dict[str, str]]:
    """A picture by the page's API, and what its infotext says."""
    payload = {"width": 256, "height": 256, "steps": 2, "seed": 1, "prompt": "a cat"}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, "native_size": 128}]}}
    response = TestClient(app).post("/sdapi/v1/txt2img", json=payload)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    return response.json()["images"][0], json.loads(response.json()["info"])["extra_generation_params"]


def test_one_of_them_is_used_and_it_is_said_which(copies: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    alone = made(server.create_app(copies[:1]))
    for start in (partial(server.create_app, copies), server.reload_app):
        app = start()
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            (script,) = runner.alwayson_scripts
            assert Path(script.filename).is_relative_to(REPOSITORY)
        assert made(app) == alone
        (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "twice" in r.message]
        assert all(str(folder) in said for folder in copies)
        caplog.clear()
