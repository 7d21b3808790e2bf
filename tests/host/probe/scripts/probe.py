"""Test-only WebUI extension: records what the host calls and when, and makes things go wrong on request.

Works unmodified on A1111, Forge and the stand-in. Its first argument is a dict (or its JSON text), all keys optional:

    {"unet": true,              record every UNet call: timestep, input shape, the largest stride of its convolutions
     "raise": {"where": "unet" or the name of a hook or callback, "at": 2,
               "what": "Exception" or "OutOfMemory" or "Abort" or "InterruptedException"},
     "fault": {"place": "module" or "planning" or "patching" or "restoring", "at": 3, "what": as above},
                                 fail once: before or after a module of the UNet runs, instead of the at-th planning
                                 of a pass or hook put on, or after the at-th hook taken off
     "tiles": true,             cut every UNet call in two, as tiled samplers do (where an ldm or sgm wrapper calls it)
     "interrupt": 2,            press "Interrupt" during this UNet call
     "hold": 2}                 stay in this UNet call until somebody asks GET /probe/go

`at`, `interrupt` and `hold` count calls from 0.

The other arguments only show what the host makes of arguments. Read the results at GET /probe/log and /probe/unet.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from collections.abc import Callable
from typing import Any

import gradio as gr
import torch
from fastapi.responses import JSONResponse
from torch.utils.hooks import RemovableHandle

from modules import script_callbacks, scripts, sd_samplers_common, shared


class Abort(BaseException):
    """Something that `except Exception` does not catch, such as KeyboardInterrupt (which would end the server)."""


ERRORS = {
    "Exception": RuntimeError,
    "OutOfMemory": torch.cuda.OutOfMemoryError,
    "Abort": Abort,
    "InterruptedException": sd_samplers_common.InterruptedException,
}
HOOK_DICTS = [
    name for name, value in vars(torch.nn.Module()).items() if name.endswith("_hooks") and isinstance(value, dict)
]


def current_unet() -> torch.nn.Module:
    """The UNet of the model that is loaded now."""
    forge = getattr(shared.sd_model, "forge_objects", None)
    return (forge.unet if forge else shared.sd_model).model.diffusion_model


class Job:
    """What is asked of the running job, and what happened in it."""

    def __init__(self, request: Any = None):
        request = json.loads(request or "{}") if isinstance(request, str) else request
        self.request: dict[str, Any] = request if isinstance(request, dict) else {}
        self.events: list[dict[str, Any]] = []
        self.calls = 0
        self.handles: list[Any] = []
        self.unet: Any = None
        self.tiled: Any = None
        self.disarm: Any = None
        self.go = threading.Event()

    def record(self, name: str, **details: Any) -> None:
        """Note an event, then raise if the request says so."""
        self.events.append({"event": name, **details})
        order = self.request.get("raise") or {}
        if order.get("where") == name and order.get("at", 0) == sum(e["event"] == name for e in self.events) - 1:
            raise ERRORS[order.get("what", "Exception")](f"asked for in {name}")

    def watch(self) -> None:
        """Hook the UNet that is loaded now, if this job wants to see its calls."""
        unet = current_unet()
        if unet is not self.unet and self.request.keys() & {"unet", "interrupt", "hold", "raise"}:
            self.unwatch()
            self.unet, self.handles = unet, [unet.register_forward_pre_hook(self._before_unet, with_kwargs=True)]
            strided = [m for m in unet.modules() if isinstance(m, torch.nn.Conv2d) and max(m.stride) > 1]
            self.handles += [conv.register_forward_hook(self._after_strided) for conv in strided]

    def arm(self) -> None:
        """Prepare the fault that the request asks for, once per job."""
        if self.disarm is None and self.request.get("fault"):
            self.disarm = arm(**self.request["fault"])

    def tile(self) -> None:
        """Cut the UNet's calls in two, if this job wants that."""
        wrapper = getattr(shared.sd_model, "model", None)
        if not self.request.get("tiles") or self.tiled is not None or wrapper is None:
            return
        whole = wrapper.forward
        wrapper.forward = lambda x, *args, **kwargs: torch.cat(
            [whole(half, *args, **kwargs) for half in x.chunk(2, 2)], 2
        )
        self.tiled = wrapper

    def unwatch(self) -> None:
        if self.disarm is not None:
            self.disarm()
        for handle in self.handles:
            handle.remove()
        if self.tiled is not None:
            del self.tiled.forward
        self.handles, self.unet, self.tiled, self.disarm = [], None, None, None

    def _before_unet(self, unet, args: tuple, kwargs: dict) -> None:
        x = args[0] if args else kwargs["x"]
        t = args[1] if len(args) > 1 else kwargs["timesteps"]
        call, self.calls = self.calls, self.calls + 1
        if call == self.request.get("interrupt"):
            shared.state.interrupt()
        self.record("unet", t=t.max().item(), x=list(x.shape), sampling_step=shared.state.sampling_step, stride=1)
        if call == self.request.get("hold"):
            self.go.wait()

    def _after_strided(self, conv, args: tuple, output: torch.Tensor) -> None:
        call = next(event for event in reversed(self.events) if event["event"] == "unet")
        call["stride"] = max(call["stride"], *conv.stride)


def arm(place: str, at: int, what: str) -> Callable[[], None]:
    """Make something fail the next time, or the at-th next time, it happens; returns what undoes that."""
    count = 0

    def fail(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == at + 1:
            raise ERRORS[what](f"asked for in {place}")

    if place == "module":
        modules = list(current_unet().modules())
        module, before = modules[at // 2 % len(modules)], at % 2
        at = 0
        return (module.register_forward_pre_hook if before else module.register_forward_hook)(fail).remove
    owner, name = {
        "planning": (importlib.import_module("hidiffusion_ext.webui.script"), "plan_pass"),
        "patching": (torch.nn.Module, "register_forward_pre_hook"),
        "restoring": (RemovableHandle, "remove"),
    }[place]
    original = getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        if place != "restoring":
            fail()
        result = original(*args, **kwargs)
        if place == "restoring":
            fail()
        return result

    setattr(owner, name, failing)
    return lambda: setattr(owner, name, original)


job = Job()


def on_hook(hook: str):
    """A hook that records itself."""

    def call(self, p, *args, **kwargs) -> None:
        details = {
            "is_hr_pass": p.is_hr_pass,
            "size": [p.width, p.height],
            "sampler": type(p.sampler).__name__,
            "hr_upscale_to": [getattr(p, "hr_upscale_to_x", None), getattr(p, "hr_upscale_to_y", None)],
        }
        details |= {key: kwargs[key] for key in ("batch_number", "prompts", "seeds") if key in kwargs}
        details |= {key: list(kwargs[key].shape) for key in ("x", "noise", "images") if key in kwargs}
        if hook == "before_process":
            details["args"] = list(args)
        if hook == "process" and args[3] != DEFAULT_TEXT:
            p.extra_generation_params["Probe text"] = args[3]
        if hook == "process_before_every_sampling":
            job.arm()
            job.watch()
            job.tile()
        if hook == "postprocess":
            job.unwatch()
        job.record(hook, **details)

    return call


DEFAULT_TEXT = "plain"


class Script(scripts.Script):
    def title(self):
        return "Probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        with gr.Accordion("Probe", open=False):
            request = gr.Textbox(label="Probe request", value="", elem_id=self.elem_id("request"))
            number = gr.Slider(
                label="Probe number", minimum=0, maximum=10, step=0.5, value=2.5, elem_id=self.elem_id("number")
            )
            flag = gr.Checkbox(label="Probe flag", value=True, elem_id=self.elem_id("flag"))
            text = gr.Textbox(label="Probe text", value=DEFAULT_TEXT, elem_id=self.elem_id("text"))
        self.infotext_fields = [(text, "Probe text")]
        self.paste_field_names = ["Probe text"]
        return [request, number, flag, text]

    def setup(self, p, *args):
        global job
        job.unwatch()
        job = Job(args[0] if args else None)
        close = p.close

        def close_and_unwatch() -> None:
            job.unwatch()
            close()
            job.events.append({"event": "close"})

        p.close = close_and_unwatch
        job.record("setup")


for hook in (
    "before_process",
    "process",
    "before_process_batch",
    "process_batch",
    "process_before_every_sampling",
    "before_hr",
    "postprocess_batch",
    "postprocess",
):
    setattr(Script, hook, on_hook(hook))


def on_cfg_denoiser(params) -> None:
    job.watch()  # the refiner may have brought another UNet
    job.record("cfg_denoiser", x=list(params.x.shape), sigma=params.sigma.max().item())


script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
script_callbacks.on_cfg_denoised(lambda params: job.record("cfg_denoised", x=list(params.x.shape)))
script_callbacks.on_cfg_after_cfg(lambda params: job.record("cfg_after_cfg", x=list(params.x.shape)))
script_callbacks.on_model_loaded(lambda sd_model: job.record("model_loaded"))


def describe(module: torch.nn.Module) -> dict[str, Any]:
    """Everything about one module that an extension could have left behind, except its weights."""
    forward = type(module).forward
    info = {
        "type": f"{type(module).__module__}.{type(module).__qualname__}",
        "dict": sorted(vars(module)),
        "forward": f"{forward.__module__}.{forward.__qualname__}",
        "hooks": {name: len(getattr(module, name)) for name in HOOK_DICTS if getattr(module, name, None)},
    }
    if isinstance(module, torch.nn.Conv2d):
        info |= {name: str(getattr(module, name)) for name in ("stride", "dilation", "padding", "padding_mode")}
    return info


def fingerprint() -> dict[str, Any]:
    """`modules` by name, the number of hooks on them, a digest of the weights, and one of it all."""
    unet = current_unet()
    modules = {name: describe(module) for name, module in unet.named_modules()}
    weights = hashlib.sha256()
    for name, tensor in unet.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    hooks = sum(count for info in modules.values() for count in info["hooks"].values())
    digest = hashlib.sha256(json.dumps([modules, weights.hexdigest()], sort_keys=True).encode())
    return {
        "digest": digest.hexdigest(),
        "weights": weights.hexdigest(),
        "hooks": hooks,
        "modules": modules,
        "id": id(unet),
    }


def on_app_started(demo, app) -> None:
    # Given as JSON: FastAPI would look through it all for what is none, which takes as long as making it.
    app.add_api_route("/probe/unet", lambda: JSONResponse(fingerprint()), methods=["GET"])
    app.add_api_route("/probe/log", lambda: job.events, methods=["GET"])
    app.add_api_route("/probe/go", lambda: job.go.set(), methods=["GET"])


script_callbacks.on_app_started(on_app_started)
