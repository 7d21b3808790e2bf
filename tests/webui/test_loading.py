"""The extension loaded again, or from two folders, as after a download beside a clone: it is there once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import server
from fastapi.testclient import TestClient

from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.webui.log import logger
from hidiffusion_ext.webui.plan_route import PATH
from modules import scripts

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[list[Path]]:
    second = tmp_path / "sd-webui-hidiffusion-main"
    for folder in ("scripts", "hidiffusion_ext"):
        shutil.copytree(REPOSITORY / folder, second / folder)
    yield [REPOSITORY, second]
    server.create_app([REPOSITORY])


def made(app: object, steps: int = 2, **settings: object) -> tuple[str, dict[str, str]]:
    """A picture by the page's API, and what its infotext says."""
    payload: dict[str, object] = {"width": 128, "height": 128, "steps": steps, "seed": 1, "prompt": "a cat"}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, "native_size": 64, **settings}]}}
    response = TestClient(app).post("/sdapi/v1/txt2img", json=payload)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    return response.json()["images"][0], json.loads(response.json()["info"])["extra_generation_params"]


def test_one_of_them_is_used_and_it_is_said_which(copies: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(logger.handlers[0], "emit", lambda record: said.append(record.getMessage()))
    alone = made(server.create_app(copies[:1]))
    for start in (partial(server.create_app, copies), server.reload_app):
        app = start()
        for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
            (script,) = runner.alwayson_scripts
            assert Path(script.filename).is_relative_to(REPOSITORY)
        assert made(app) == alone
        (warning,) = [line for line in said if "twice" in line]
        assert all(str(folder) in warning for folder in copies)
        said.clear()


@pytest.mark.parametrize("older_first", [False, True])
def test_beside_an_older_version_the_first_one_loaded_works(copies: list[Path], older_first: bool) -> None:
    # Both share the package of whichever was loaded first, which has not what the other one's script asks for.
    alone = made(server.create_app(copies[:1]))
    script = copies[1] / "scripts" / "hidiffusion.py"
    script.write_text("from hidiffusion_ext.webui.long_gone import Script\n" + script.read_text())
    assert made(server.create_app(copies[::-1] if older_first else copies)) == alone
    (used,) = scripts.scripts_txt2img.alwayson_scripts
    assert Path(used.filename).is_relative_to(REPOSITORY)


def test_reloaded_again_and_again_it_is_there_once_and_makes_the_same_picture() -> None:
    app = server.create_app([REPOSITORY])
    first = made(app)
    for _ in range(3):
        app = server.reload_app()
    assert made(app) == first
    assert len(scripts.scripts_txt2img.alwayson_scripts) == len(scripts.scripts_img2img.alwayson_scripts) == 1
    assert [getattr(route, "path", "") for route in app.routes].count(PATH) == 1
    plot = next(data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py")
    assert len([axis for axis in plot.axis_options if "[HiDiffusion]" in axis.label]) == len(SETTINGS)


CONTROLNET = """
from modules import scripts
class Script(scripts.Script):
    def title(self): return "ControlNet"
    def show(self, is_img2img): return scripts.AlwaysVisible
    def ui(self, is_img2img): return []
    def process(self, p, *args): p.extra_generation_params["Seen"] = (p.width, p.enable_hr, p.hr_resize_x)
"""
"""Looks when sd-webui-controlnet does at the sizes that it fits its picture to."""


def test_controlnet_fits_its_picture_to_both_passes_of_native_first(tmp_path: Path) -> None:
    scripts_of = tmp_path / "sd-webui-controlnet" / "scripts"
    scripts_of.mkdir(parents=True)
    (scripts_of / "controlnet.py").write_text(CONTROLNET)
    try:
        _, told = made(server.create_app([scripts_of.parent, REPOSITORY]), steps=6, method="Native first")
    finally:
        server.create_app([REPOSITORY])
    assert told["Seen"] == [64, True, 128]
