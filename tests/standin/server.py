"""Start the stand-in as a web server.

    python tests/standin/server.py [--port 7860] [extension folder ...]

Tests use `running(extension_dirs)`, which starts it in a process of its own and stops it afterwards.
"""

from __future__ import annotations

import argparse
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
TOOLS = HERE.parent.parent / "tools"
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "GRADIO_ANALYTICS_ENABLED": "False"}


def create_app(extension_dirs: Sequence[str | Path]):
    """The FastAPI application, with the page at / and the API; extensions are loaded from the given folders."""
    sys.path[:0] = [str(folder) for folder in (HERE, TOOLS) if str(folder) not in sys.path]
    import bare_k_diffusion

    bare_k_diffusion.install()
    from modules import scripts

    scripts.extension_dirs = [str(Path(folder).resolve()) for folder in extension_dirs]
    return _start()


def reload_app():
    """What "Reload UI" does: unload callbacks, then load everything again into a new application."""
    from modules import script_callbacks

    script_callbacks.script_unloaded_callback()
    return _start()


def _start():
    """Load the scripts and build page and API, in the host's order."""
    from threading import Lock

    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import FileResponse

    from modules import script_callbacks, scripts, shared, ui
    from modules.api.api import Api

    scripts.load_scripts()
    shared.sd_model  # noqa: B018  (loads the checkpoint)
    demo = ui.create_ui()
    app = FastAPI()
    Api(app, Lock())
    folders = [HERE, *map(Path, scripts.extension_dirs)]
    files = [HERE / "standin.js", *(f for d in folders for f in sorted(d.glob("javascript/*.js")))]
    files += [f for d in folders for f in d.glob("style.css")]
    tags = ""
    for i, file in enumerate(files):
        path = f"/page/{i}/{file.name}"
        app.add_api_route(path, lambda file=file: FileResponse(file), include_in_schema=False)
        css = file.suffix == ".css"
        tags += f'<link rel="stylesheet" href="{path}">' if css else f'<script src="{path}"></script>'
    script_callbacks.app_started_callback(demo, app)

    @app.middleware("http")
    async def add_javascript(request, call_next):
        response = await call_next(request)
        if request.url.path != "/":
            return response
        html = b"".join([chunk async for chunk in response.body_iterator]).decode()
        from fastapi.responses import HTMLResponse

        return HTMLResponse(html.replace("<head>", f"<head>{tags}", 1))

    return gr.mount_gradio_app(app, demo, "/")


def serve(extension_dirs: Sequence[str | Path], port: int) -> None:
    """Serve on 127.0.0.1 until stopped."""
    import uvicorn

    uvicorn.run(create_app(extension_dirs), host="127.0.0.1", port=port, log_level="warning")


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
def running(
    extension_dirs: Sequence[str | Path], port: int | None = None, packages: Path | None = None
) -> Iterator[str]:
    """Run the stand-in in a process of its own; gives its address. Its output goes to this process's.

    Packages in the folder `packages` go before those of the environment.
    """
    port = port or free_port()
    command = [sys.executable, str(HERE / "server.py"), "--port", str(port), *map(str, extension_dirs)]
    environment = os.environ | ENVIRONMENT | ({"PYTHONPATH": str(packages)} if packages else {})
    process = subprocess.Popen(command, env=environment)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/sdapi/v1/sd-models", process, timeout=600)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extensions", nargs="*")
    parser.add_argument("--port", type=int, default=7860)
    arguments = parser.parse_args()
    serve(arguments.extensions, arguments.port)
