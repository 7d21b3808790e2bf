"""A WebUI that only pretends: it answers at once, and goes wrong as a test tells it to."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from PIL import Image

GIB = 2**30
CHECKPOINT = "secret-name"


class ScriptedHost:
    """Serves on 127.0.0.1 while entered.

    Attributes:
        asked: The payload of every picture it was asked for.
        interrupted: How often it was told to drop one.
        behave: Called with a payload before it is answered; returns None (a picture), a pair of status and body, or
            "drop" to break the connection.
        info: What is changed in the `info` of an answer.
        size: The pictures' size instead of the one asked for.
        plan: What it answers as the extension does.
        reserved: Bytes of its graphics card; what was told of them is in `told`, which `has_told` is about.
        paths: What it answers to GET, by path.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.interrupted = 0
        self.behave: Callable[[dict[str, Any]], Any] = lambda payload: None
        self.info: dict[str, Any] = {}
        self.size: tuple[int, int] | None = None
        self.reserved, self.told, self.has_told = 3 * GIB, list[int](), threading.Condition()
        plan = {"refused": "", "mark": "up to 1.7 times as fast", "speed_up": 1.7, "advice": ""}
        self.plan = {**plan, "model": f"SD1.5 ({CHECKPOINT}.safetensors)", "passes": [{"native": 64}]}
        self.paths: dict[str, Any] = {
            "/sdapi/v1/samplers": [{"name": "DPM++ 2M", "aliases": ["k_dpmpp_2m"]}],
            "/sdapi/v1/schedulers": [{"name": "automatic", "label": "Automatic"}],
            "/sdapi/v1/upscalers": [{"name": "Lanczos"}],
        }
        self.plans_asked: list[dict[str, str]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ScriptedHost:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                at = urlsplit(self.path)
                if at.path == "/hidiffusion/v1/plan":
                    host.plans_asked.append(dict(parse_qsl(at.query)))
                    self.send(200, host.plan)
                elif at.path == "/sdapi/v1/memory":
                    now = host.reserved
                    self.send(200, {"ram": {}, "cuda": {"system": {"total": 24 * GIB}, "reserved": {"current": now}}})
                    with host.has_told:
                        host.told.append(now)
                        host.has_told.notify_all()
                elif at.path in host.paths:
                    self.send(200, host.paths[at.path])
                else:
                    self.send(404, {"detail": "Not Found"})

            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/sdapi/v1/interrupt":
                    host.interrupted += 1
                    self.send(200, {})
                    return
                host.asked.append(payload)
                told = host.behave(payload)
                if told == "drop":
                    self.close_connection = True
                    self.connection.shutdown(2)
                elif told is None:
                    self.send(200, host.made(payload))
                else:
                    self.send(*told)

            def send(self, status: int, body: Any) -> None:
                encoded = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def made(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The answer to a payload: plain pictures whose colour tells the seed."""
        if "alwayson_scripts" not in payload:  # asked only to have the model loaded
            return {}
        hires = payload.get("enable_hr")
        asked = (payload["hr_resize_x"], payload["hr_resize_y"]) if hires else (payload["width"], payload["height"])
        size, count = self.size or asked, payload["batch_size"]
        images = [_picture(size, payload["seed"] + number) for number in range(count)]
        settings = payload["alwayson_scripts"]["HiDiffusion"]["args"][0]
        extra = {"HiDiffusion": "RAU-Net", "HiDiffusion version": "0.1.0"} if settings["enabled"] else {}
        info = {
            "index_of_first_image": 0,
            "infotexts": [payload["prompt"]] * len(images),
            "sd_model_name": CHECKPOINT,
            "extra_generation_params": extra,
            "version": "v1.10.1",
            **self.info,
        }
        return {"images": images, "info": json.dumps(info)}


def _picture(size: tuple[int, int], seed: int) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, (seed * 40 % 256, 90, 160)).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()
