"""A host that lacks what is needed makes its pictures as always, and the infotext says why nothing was done."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import server
from fastapi.testclient import TestClient

from hidiffusion_ext.webui import script as script_module
from hidiffusion_ext.webui.log import logger
from hidiffusion_ext.webui.script import TOO_OLD, HiDiffusionScript
from modules import scripts

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("arguments", "said"), [((True,), {"HiDiffusion refused": TOO_OLD}), ((False,), {}), ((), {})])
def test_a_webui_without_the_hook_of_a_pass(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], said: dict[str, str]
) -> None:
    monkeypatch.delattr(scripts.Script, "process_before_every_sampling")
    comments: list[str] = []
    p = SimpleNamespace(extra_generation_params={}, comments=comments, comment=comments.append)
    HiDiffusionScript().process_batch(p, *arguments)
    assert p.extra_generation_params == said
    assert len(comments) == len(said)


def test_a_webui_that_cannot_show_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = {"width": 128, "height": 128, "steps": 2, "seed": 1, "prompt": "a cat"}

    def picture() -> str:
        return TestClient(server.create_app([REPOSITORY])).post("/sdapi/v1/txt2img", json=payload).json()["images"][0]

    as_always = picture()
    said: list[str] = []
    with monkeypatch.context() as old:
        old.setattr(logger.handlers[0], "emit", lambda record: said.append(record.getMessage()))
        old.setattr(script_module, "InputAccordion", None)
        assert picture() == as_always
        assert not scripts.scripts_txt2img.alwayson_scripts
        assert not scripts.scripts_img2img.alwayson_scripts
    assert said == [f"not used: {TOO_OLD}"]
    server.create_app([REPOSITORY])
