"""docs/api.md tells the truth: its examples are run, and its table is the list of settings."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import server
import uvicorn
from PIL import Image
from told import parts_of

from hidiffusion_ext.core import Options
from hidiffusion_ext.core.options import SETTINGS, Choice, Setting, plain
from hidiffusion_ext.core.parts.part import WHOLE
from modules import shared

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf8")


def blocks(language: str) -> list[str]:
    """The document's code in one language."""
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A WebUI whose owner has said that pictures of a quarter of the usual size are what its model was made for."""
    shared.opts.data["hidiffusion_native_size"] = 128
    app, number = server.create_app([REPOSITORY]), server.free_port()
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=number, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        thread.join(0.1)
    yield number
    running.should_exit = True
    thread.join()
    del shared.opts.data["hidiffusion_native_size"]


def adapted(code: str, port: int) -> str:
    """An example for this WebUI: its address, a quarter of the size, and few steps."""
    for written, here in (("7860", str(port)), ("1024", "256"), ('"steps": 20', '"steps": 4'), ("steps=20", "steps=4")):
        code = code.replace(written, here)
    return code


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("bash"), reason="curl and bash are not installed here")
def test_the_example_with_curl(port: int, tmp_path: Path) -> None:
    (code,) = blocks("bash")
    said = run(["bash", "-c", adapted(code, port)], tmp_path).strip()
    assert parts_of(said) == {"RAU-Net": (1, 2, 4), "MSW-MSA": WHOLE}


@pytest.mark.parametrize("index", range(2))
def test_the_examples_in_python(port: int, tmp_path: Path, index: int) -> None:
    said = run([sys.executable, "-c", adapted(blocks("python")[index], port)], tmp_path)
    assert ("HiDiffusion T1: 0.5", "HiDiffusion: re-dilation")[index] in said.replace('"', "")
    assert Image.open(tmp_path / "lighthouse.png").size == (256, 256)


def test_the_examples_of_arguments_are_accepted() -> None:
    given = [Options.from_args(json.loads(code)["alwayson_scripts"]["HiDiffusion"]["args"]) for code in blocks("json")]
    assert len(given) == 2
    assert all(options.enabled for options in given)


def test_the_table_is_the_list_of_settings() -> None:
    def values(setting: Setting) -> str:
        if isinstance(setting.default, Choice):
            return ", ".join(f'"{choice.value}"' for choice in type(setting.default))
        if isinstance(setting.default, bool):
            return "true, false"
        kind = "a whole number" if isinstance(setting.default, int) else "a number"
        return f"{kind} from {setting.minimum:g} to {setting.maximum:g}"

    def default(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else json.dumps(value)

    rows = [f"| `{name}` | {values(s)} | {default(plain(s.default))} |" for name, s in SETTINGS.items()]
    assert "\n".join(["|---|---|---|", *rows]) in DOCUMENT


def test_the_host_describes_every_setting() -> None:
    from modules import scripts

    for runner in (scripts.scripts_txt2img, scripts.scripts_img2img):
        described = runner.script("HiDiffusion").api_info["args"]
        assert len(described) == len(SETTINGS)
        for said, (name, setting) in zip(described, SETTINGS.items()):
            assert said["label"] == ("HiDiffusion" if name == "enabled" else setting.label)
            limits = (said.get("minimum"), said.get("maximum"), said.get("step"))
            assert limits == (setting.minimum, setting.maximum, setting.step)
            if isinstance(setting.default, Choice):
                assert said["choices"] == [choice.value for choice in type(setting.default)]


def test_the_entry_of_the_extension_index_is_complete() -> None:
    """As the index's own check has it."""
    entry = json.loads((REPOSITORY / "docs" / "extension-index.json").read_text(encoding="utf8"))
    assert entry.keys() == {"name", "url", "description", "tags"}
    assert re.fullmatch(r"https://[^ ]+\.git", entry["url"])
    assert set(entry["tags"]) <= {"script", "manipulations"}
