"""Jobs of the stand-in through its API, and everything they say."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import server
from client import decode
from fastapi.testclient import TestClient

REPOSITORY = Path(__file__).resolve().parents[2]
HIRES = {"width": 64, "height": 64, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent"}
SCALECRAFTER = {"method": "ScaleCrafter", "preset": "4x"}


class Host:
    """The stand-in, and what its log says."""

    def __init__(self) -> None:
        self.client = TestClient(server.create_app([REPOSITORY]), raise_server_exceptions=False)
        self.records: list[logging.LogRecord] = []
        self.status = 0

    def job(self, settings: dict[str, Any] | None = None, **payload: Any) -> tuple[list[bytes], dict[str, Any], str]:
        """The pictures of a job, what their infotext says of HiDiffusion, and the comments on the page."""
        self.records.clear()
        payload = {"width": 128, "height": 128, "steps": 4, "seed": 1, "prompt": "a cat", **payload}
        if settings is not None:
            settings = {"enabled": True, "native_size": 64, **settings}
            payload["alwayson_scripts"] = {"HiDiffusion": {"args": [settings]}}
        response = self.client.post("/sdapi/v1/txt2img", json={"sampler_name": "Euler a", **payload})
        self.status = response.status_code
        if self.status != 200:
            return [], {}, ""
        made, info = response.json(), json.loads(response.json()["info"])
        noted = {key: value for key, value in info["extra_generation_params"].items() if "HiDiffusion" in key}
        assert all(str(value) in text for value in noted.values() for text in info["infotexts"][-1:])
        return [decode(picture).tobytes() for picture in made["images"]], noted, made.get("comments", "")

    @property
    def log(self) -> list[str]:
        """Everything in the log."""
        return [record.getMessage() for record in self.records]

    @property
    def said(self) -> list[str]:
        """The problems in the log."""
        return [record.getMessage() for record in self.records if record.levelno >= logging.WARNING]
