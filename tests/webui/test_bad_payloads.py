"""Whatever a program sends as arguments: a picture comes back, as asked or unchanged, and it says which."""

from __future__ import annotations

import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import server
from fastapi.testclient import TestClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from hidiffusion_ext.core import OptionError, Options
from hidiffusion_ext.core.options import SETTINGS, is_off
from modules import shared

REPOSITORY = Path(__file__).resolve().parents[2]

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
"""The hosts echo the payload, which they cannot with NaN or infinity; `test_options` has these."""

scalars = st.none() | st.booleans() | numbers | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=8
)
known = st.dictionaries(st.sampled_from(list(SETTINGS)), values, max_size=4)
arguments = st.lists(values | known, min_size=1, max_size=len(SETTINGS))  # the hosts cut off more


class Host:
    """The stand-in's API, and the picture it makes without HiDiffusion."""

    def __init__(self) -> None:
        self.client = TestClient(server.create_app([REPOSITORY]))
        self.plain, _ = self.txt2img([False])

    def txt2img(self, args: list[Any]) -> tuple[bytes, dict[str, Any]]:
        """Pixels and what the infotext says."""
        payload = {"width": 64, "height": 64, "steps": 1, "seed": 1, "prompt": "a cat"}
        payload["alwayson_scripts"] = {"HiDiffusion": {"args": args}}
        response = self.client.post("/sdapi/v1/txt2img", json=payload)
        assert response.status_code == 200, response.text
        made = response.json()
        picture = Image.open(BytesIO(b64decode(made["images"][0])))
        return picture.tobytes(), json.loads(made["info"])["extra_generation_params"]


@pytest.fixture(scope="module")
def host() -> Host:
    return Host()


@settings(max_examples=60)
@given(args=arguments)
@example(args=[{"enabled": True, "native_size": 10**400}])
@example(args=[{"enabled": True} | {f"key {number}": number for number in range(5000)}])
@example(args=[{"enabled": True, "preset": "<img src=x onerror=alert(1)>" * 1000}])
@example(args=[[[[[[[[[[[["deep"]]]]]]]]]]]])
def test_a_picture_is_made_whatever_is_sent(host: Host, args: list[Any]) -> None:
    picture, said = host.txt2img(args)
    refused = said.get("HiDiffusion refused", "")
    try:
        wanted = not is_off(args) and Options.from_args(args).enabled
    except OptionError as error:
        assert refused == str(error)
        assert 0 < len(refused) < 400
        wanted = False
    if not wanted:
        assert picture == host.plain
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet_modules())


@pytest.mark.parametrize("args", [[None], [0], [None] * len(SETTINGS), [{"enabled": None, "t1": 7}]])
def test_off_is_off_and_says_nothing(host: Host, args: list[Any]) -> None:
    picture, said = host.txt2img(args)
    assert picture == host.plain
    assert not any(key.startswith("HiDiffusion") for key in said)


def unet_modules() -> Any:
    return shared.sd_model.model.diffusion_model.modules()
