"""Talk to a running WebUI, real or stand-in, that has the probe installed."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # localhost: never through a proxy


class HTTPError(Exception):
    """The server answered with an error status."""

    def __init__(self, status: int, body: str):
        super().__init__(f"HTTP {status}: {body}")
        self.status, self.body = status, body


class WebUI:
    """A server.

    `size` and `steps` are the defaults of a request: as small as the models can be trusted to work. `scale` is what
    sizes that are named in tests are multiplied with, for a host too slow for them.
    """

    def __init__(self, url: str, *, scale: float = 1, size: int = 128, steps: int = 4, timeout: float = 600):
        self.url, self.scale, self.size, self.steps, self.timeout = url.rstrip("/"), scale, size, steps, timeout

    def call(self, path: str, payload: Any = None) -> Any:
        """GET `path`, or POST `payload` to it; gives the parsed answer."""
        data = None if payload is None else json.dumps(payload).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with _opener.open(request, timeout=self.timeout) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as e:
            raise HTTPError(e.code, e.read().decode(errors="replace")) from None

    def txt2img(self, **payload: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Images [H, W, 3] uint8 and the `info`; arguments replace defaults, `probe=` is the probe's argument list."""
        return self.generate("txt2img", self._with_defaults(payload))

    def img2img(self, image: np.ndarray | None = None, **payload: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
        """As txt2img; `image` defaults to a gradient."""
        if image is None:
            ramp = np.linspace(0, 255, self.size, dtype=np.uint8)
            image = np.stack([*np.meshgrid(ramp, ramp), np.full((self.size, self.size), 128, np.uint8)], -1)
        return self.generate("img2img", {"init_images": [encode(image)]} | self._with_defaults(payload))

    def _with_defaults(self, payload: dict[str, Any]) -> dict[str, Any]:
        default = dict(
            prompt="a cat",
            negative_prompt="dog",
            width=self.size,
            height=self.size,
            steps=self.steps,
            seed=7,
            sampler_name="Euler",
            cfg_scale=5,
        )
        if payload.get("enable_hr"):
            default["hr_upscaler"] = self.upscaler
            default["hr_additional_modules"] = ["Use same choices"]  # Forge makes no second pass without it
        probe = payload.pop("probe", None)
        if probe is not None:
            payload["alwayson_scripts"] = payload.get("alwayson_scripts", {}) | {"probe": {"args": probe}}
        return default | payload

    def generate(self, tab: str, payload: dict[str, Any]) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Posts a payload as it is to /sdapi/v1/`tab`."""
        answer = self.call(f"/sdapi/v1/{tab}", payload)
        return [np.asarray(decode(text).convert("RGB")) for text in answer["images"]], json.loads(answer["info"])

    @cached_property
    def upscaler(self) -> str:
        """For hires fix: of latents where the host has that, else of pixels."""
        return "Latent" if self.call("/sdapi/v1/latent-upscale-modes") else "None"

    def checkpoints(self) -> list[str]:
        """The names of the models it can load."""
        return [model["model_name"] for model in self.call("/sdapi/v1/sd-models")]

    def loras(self) -> list[str]:
        """The names of the LoRAs it can apply; none if it has no support for them."""
        try:
            return [lora["name"] for lora in self.call("/sdapi/v1/loras")]
        except HTTPError:
            return []

    def controlnets(self) -> list[str]:
        """The names of its ControlNet models; none if it has no support for them."""
        try:
            return self.call("/controlnet/model_list")["model_list"]
        except HTTPError:
            return []

    def preprocessors(self) -> list[str]:
        """The names of its ControlNet preprocessors; none if it has no support for them."""
        try:
            return self.call("/controlnet/module_list")["module_list"]
        except HTTPError:
            return []

    def fingerprint(self) -> dict[str, Any]:
        """What the probe sees of the UNet's modules."""
        return self.call("/probe/unet")

    def events(self, *, drop: tuple[str, ...] = ()) -> list[dict[str, Any]]:
        """What the probe recorded during the last job, without the events named in `drop`."""
        return [event for event in self.call("/probe/log") if event["event"] not in drop]

    def names(self, *, drop: tuple[str, ...] = ()) -> list[str]:
        """Names of the last job's events, in order."""
        return [event["event"] for event in self.events(drop=drop)]


def encode(image: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def decode(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))
