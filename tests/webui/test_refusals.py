"""What cannot be done is said once, when the pass starts: what is expected before that may turn out otherwise."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import server
from fastapi.testclient import TestClient
from told import parts_of

from hidiffusion_ext.core import Plan, Refused
from hidiffusion_ext.core.parts.part import WHOLE
from hidiffusion_ext.hosts.passes import plan_pass
from hidiffusion_ext.webui import patched_pass, script
from hidiffusion_ext.webui.log import logger

REPOSITORY = Path(__file__).resolve().parents[2]
REASON = "another extension is in the way"


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(server.create_app([REPOSITORY]))


@pytest.mark.parametrize(("early", "late"), [(True, False), (False, True), (True, True)])
def test_what_holds_when_the_pass_starts(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, early: bool, late: bool
) -> None:
    refused, said = iter([early, late]), []

    def planned(*args: Any, **kwargs: Any) -> Any:
        if next(refused):
            raise Refused(REASON)
        return plan_pass(*args, **kwargs)

    for module in (script, patched_pass):
        monkeypatch.setattr(module, "plan_pass", planned)
    monkeypatch.setattr(logger.handlers[0], "emit", lambda record: said.append(record.getMessage()))
    payload = {"width": 128, "height": 128, "steps": 3, "prompt": "a cat"}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, "native_size": 64}]}}
    info = json.loads(client.post("/sdapi/v1/txt2img", json=payload).json()["info"])
    noted = {key: value for key, value in info["extra_generation_params"].items() if "HiDiffusion" in key}
    if late:
        assert noted == {"HiDiffusion refused": REASON}
        assert said == [f"not used: {REASON}"]
    else:
        assert parts_of(noted["HiDiffusion"]) == {"RAU-Net": (1, 1, 3), "MSW-MSA": WHOLE}
        assert "HiDiffusion refused" not in noted
        assert not any("not used" in line for line in said)


def test_an_unexpected_error_costs_no_picture_and_leaves_its_traceback(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[logging.LogRecord] = []

    def failing(*args: Any) -> Any:
        raise KeyError("timesteps")

    monkeypatch.setattr(Plan, "changes", failing)
    monkeypatch.setattr(logger.handlers[0], "emit", said.append)
    payload = {"width": 128, "height": 128, "steps": 3, "prompt": "a cat"}
    payload["alwayson_scripts"] = {"HiDiffusion": {"args": [{"enabled": True, "native_size": 64}]}}
    answer = client.post("/sdapi/v1/txt2img", json=payload).json()
    noted = json.loads(answer["info"])["extra_generation_params"]
    assert noted["HiDiffusion refused"].startswith("unexpected: KeyError")
    assert "HiDiffusion" not in noted
    assert len(answer["images"]) == 1
    (error,) = [record for record in said if record.exc_info]
    assert "in failing" in logging.Formatter().formatException(error.exc_info)  # type: ignore[arg-type]
    assert sum("not used: unexpected" in record.getMessage() for record in said) == 1
