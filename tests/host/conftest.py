"""The fixture `webui`: every test that asks for it runs on the stand-in and, marked `host`, on a real WebUI.

`webui_without` is the same host without this extension, for comparison.

Which real one:
    WEBUI_URL=http://127.0.0.1:7860    A1111 or Forge, running with this extension and tests/host/probe installed, or
    WEBUI_DIR=/path/to/webui           an A1111 that is installed: started on a free port and stopped afterwards.
                                       Its Python: WEBUI_PYTHON, else venv/bin/python in or beside that folder.

WEBUI_SCALE=0.25 makes the pictures of one at WEBUI_URL a quarter of the size, as on the stand-in, where its model is
too large for the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import server
from client import WebUI

HERE = Path(__file__).resolve().parent
REPOSITORY, PROBE = HERE.parent.parent, HERE / "probe"

FLAGS = [
    "--skip-prepare-environment",
    "--skip-torch-cuda-test",
    "--skip-version-check",
    "--no-half",
    "--opt-sdp-attention",
    "--use-cpu",
    "all",
    "--no-download-sd-model",
    "--do-not-download-clip",
    "--api",
    "--nowebui",
    "--server-name",
    "127.0.0.1",
]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "COMMANDLINE_ARGS": "", "PYTHONUNBUFFERED": "1"}


def find_python(webui: Path) -> Path:
    """The interpreter that the WebUI is installed in."""
    candidates = [Path(os.environ["WEBUI_PYTHON"])] if "WEBUI_PYTHON" in os.environ else []
    candidates += [folder / "venv" / "bin" / "python" for folder in (webui, webui.parent)]
    python = next((candidate for candidate in candidates if candidate.exists()), None)
    if python is None:
        pytest.skip(f"no Python found for {webui}: set WEBUI_PYTHON")
    return python


@contextmanager
def running_a1111(webui: Path, data: Path, extensions: list[Path]) -> Iterator[str]:
    """Start the WebUI in `webui` with a data folder of its own, so that nothing in the installation changes.

    The data folder gets links to the extensions, settings, and small random checkpoints and a LoRA.
    """
    python, port = find_python(webui), server.free_port()
    environment = os.environ | server.ENVIRONMENT | OFFLINE
    (data / "extensions").mkdir(parents=True)
    for extension in extensions:
        (data / "extensions" / extension.name).symlink_to(extension)
    # After a job with other settings the WebUI restores only those that are in this file.
    settings = {
        "live_previews_enable": False,
        "samples_save": False,
        "batch_cond_uncond": True,
        "lora_functional": False,
    }
    (data / "config.json").write_text(json.dumps(settings))
    checkpoint = data / "models" / "Stable-diffusion" / "tiny-random-sd1.safetensors"
    lora = data / "models" / "Lora" / "tiny-lora.safetensors"
    for file in (checkpoint, lora):
        file.parent.mkdir(parents=True)
    subprocess.run([python, HERE / "make_checkpoint.py", webui, checkpoint.parent, lora], env=environment, check=True)
    with (data / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [python, "launch.py", *FLAGS, "--data-dir", data, "--ckpt", checkpoint, "--port", str(port)],
            cwd=webui,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            server.wait_until_ready(f"http://127.0.0.1:{port}/probe/unet", process, timeout=600)
            yield f"http://127.0.0.1:{port}"
        except RuntimeError as e:
            raise RuntimeError(f"{e}; the end of its log:\n{(data / 'log.txt').read_text()[-3000:]}") from e
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


# Skipped by a mark, before any fixture: the stand-in of a file would be stopped for it and started again for the next.
REAL = pytest.mark.skipif(
    not {"WEBUI_URL", "WEBUI_DIR"} & os.environ.keys(),
    reason="set WEBUI_URL (a running A1111) or WEBUI_DIR (an installed one) to run this on the real host",
)


@pytest.fixture(scope="session", params=["stand-in", pytest.param("real", marks=[pytest.mark.host, REAL])])
def kind(request: pytest.FixtureRequest) -> str:
    """Which host the test runs on."""
    return request.param


@pytest.fixture(scope="session")
def webui(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """A WebUI with this extension and the probe."""
    with start(kind, [REPOSITORY, PROBE], "WEBUI_URL", tmp_path_factory) as host:
        yield host


@pytest.fixture(scope="session")
def webui_without(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    """The same WebUI, started without this extension."""
    with start(kind, [PROBE], "WEBUI_URL_WITHOUT", tmp_path_factory) as host:
        yield host


@contextmanager
def start(kind: str, extensions: list[Path], url: str, folders: pytest.TempPathFactory) -> Iterator[WebUI]:
    """A WebUI with the given extensions: the one at the address in the variable `url`, or one started for this."""
    if kind == "stand-in":
        with server.running(extensions) as address:
            yield WebUI(address, scale=0.25)
    elif url in os.environ:
        host = WebUI(os.environ[url], scale=float(os.environ.get("WEBUI_SCALE", 1)))
        host.txt2img(steps=1)  # Forge loads its model for the first picture
        yield host
    elif "WEBUI_DIR" in os.environ:
        data = folders.mktemp("webui") / "data"
        with running_a1111(Path(os.environ["WEBUI_DIR"]).resolve(), data, extensions) as address:
            yield WebUI(address)
    else:
        pytest.skip(f"set {url} to run this on the real host")
