"""Start the stand-in as a web server.

    python tests/standin/server.py 7860 [extension folder ...]

Tests use `running(extension_dirs)`, which starts it in a process of its own and stops it afterwards.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "GRADIO_ANALYTICS_ENABLED": "False"}


def create_app(extension_dirs: Sequence[str | Path]):
    """The FastAPI application, with the page at / and the API; extensions are loaded from the given folders."""
    sys.path += [str(HERE), str(REPOSITORY / "tools"), str(REPOSITORY)]  # its models are built by tools for tests
    import bare_k_diffusion

    bare_k_diffusion.install()
    from modules import scripts

    scripts.extension_dirs = [str(Path(folder).resolve()) for folder in extension_dirs]
    return reload_app()


def reload_app():
    """Load the scripts and build page and API, in the host's order; what "Reload UI" does, too."""
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import FileResponse, HTMLResponse

    from modules import script_callbacks, scripts, shared, ui
    from modules.api.api import Api

    scripts.load_scripts()
    shared.sd_model  # noqa: B018  (loads the checkpoint)
    demo = ui.create_ui()
    app = FastAPI()
    Api(app)
    files = [HERE / "standin.js"]
    for folder in map(Path, scripts.extension_dirs):
        files += [*sorted(folder.glob("javascript/*.js")), *folder.glob("style.css")]
    tags = ""
    for file in files:
        app.add_api_route(f"/page{file}", lambda file=file: FileResponse(file), include_in_schema=False)
        link = '<link rel="stylesheet" href="/page%s">' if file.suffix == ".css" else '<script src="/page%s"></script>'
        tags += link % file
    script_callbacks.app_started_callback(demo, app)

    @app.middleware("http")
    async def add_javascript(request, call_next):
        response = await call_next(request)
        if request.url.path != "/":
            return response
        html = b"".join([chunk async for chunk in response.body_iterator]).decode()
        return HTMLResponse(html.replace("<head>", f"<head>{tags}", 1))

    return gr.mount_gradio_app(app, demo, "/")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_ready(url: str, process: subprocess.Popen, timeout: float) -> None:
    """Wait for `url` to answer; RuntimeError if the process ends first or nothing comes within `timeout` seconds."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.time() + timeout
    while time.time() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with exit code {process.returncode}")
        try:
            opener.open(url, timeout=60).close()
            return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"{url} did not answer within {timeout} s")


@contextmanager
def running(extension_dirs: Sequence[str | Path], packages: Path | None = None) -> Iterator[str]:
    """Run the stand-in in a process of its own; gives its address. Its output goes to this process's.

    Packages in the folder `packages` go before those of the environment.
    """
    port = free_port()
    command = [sys.executable, str(HERE / "server.py"), str(port), *map(str, extension_dirs)]
    environment = os.environ | ENVIRONMENT | ({"PYTHONPATH": str(packages)} if packages else {})
    process = subprocess.Popen(command, env=environment)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/sdapi/v1/sd-models", process, timeout=600)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    import uvicorn

    os.environ.update(ENVIRONMENT)
    uvicorn.run(create_app(sys.argv[2:]), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
