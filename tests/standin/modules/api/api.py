"""The HTTP API under /sdapi/v1."""

from __future__ import annotations

import base64
import dataclasses
import io
import typing

import gradio as gr
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from PIL import Image
from pydantic import BaseModel, create_model

from modules import infotext_utils, processing, scripts, sd_models, sd_samplers, sd_schedulers, shared

EXTRA = {
    "sampler_index": (str | None, "Euler"),
    "alwayson_scripts": (dict, {}),
    "script_name": (str | None, None),
    "script_args": (list, []),
    "infotext": (str | None, None),
}
"""What a request has beside the fields of its job."""


def _request(job: type) -> type[BaseModel]:
    """The body of a request for a job: its fields, none of which has to be there."""
    kinds = typing.get_type_hints(job)
    fields = {f.name: (kinds[f.name] | None, f.default) for f in dataclasses.fields(job) if f.name != "sd_model"}
    return create_model(job.__name__, **fields | EXTRA)


Txt2Img = _request(processing.StableDiffusionProcessingTxt2Img)
Img2Img = _request(processing.StableDiffusionProcessingImg2Img)


def encode_pil_to_base64(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG")
    return base64.b64encode(out.getvalue())


def script_name_to_index(name: str, of: list[scripts.Script]) -> int:
    titles = [script.title().lower() for script in of]
    if name.lower() not in titles:
        raise HTTPException(status_code=422, detail=f"no script {name!r}")
    return titles.index(name.lower())


async def report_exception(request: Request, call_next) -> Response:
    try:
        return await call_next(request)
    except Exception as e:
        return JSONResponse({"error": type(e).__name__, "detail": "", "errors": str(e)}, 500)


class Api:
    def __init__(self, app: FastAPI):
        self.credentials = dict(pair.split(":") for pair in (shared.cmd_opts.api_auth or "").split(",") if pair)
        protected = [Depends(self.auth)] if self.credentials else []
        app.middleware("http")(report_exception)
        app.post("/sdapi/v1/txt2img", dependencies=protected)(self.text2imgapi)
        app.post("/sdapi/v1/img2img", dependencies=protected)(self.img2imgapi)
        app.post("/sdapi/v1/interrupt", dependencies=protected)(self.interruptapi)
        for path, answer in self.told().items():
            app.get(f"/sdapi/v1/{path}", dependencies=protected)(answer)
        runners = scripts.scripts_txt2img, scripts.scripts_img2img
        self.default_script_args = {runner: self.init_default_script_args(runner) for runner in runners}

    def auth(self, credentials: HTTPBasicCredentials = Depends(HTTPBasic())):
        if self.credentials.get(credentials.username) != credentials.password:
            raise HTTPException(401, "wrong user or password", {"WWW-Authenticate": "Basic"})

    def told(self) -> dict[str, typing.Callable[[], object]]:
        """What can only be read, by its path."""
        runners = scripts.scripts_txt2img, scripts.scripts_img2img
        samplers = [{"name": one.name, "aliases": one.aliases} for one in sd_samplers.all_samplers]
        return {
            "options": lambda: shared.opts.data,
            "sd-models": lambda: [{"title": i.title, "model_name": i.name} for i in sd_models.CHECKPOINTS],
            "samplers": lambda: samplers,
            "schedulers": lambda: [{"name": one.name, "label": one.label} for one in sd_schedulers.schedulers],
            "upscalers": lambda: [{"name": one.name} for one in shared.sd_upscalers],
            "latent-upscale-modes": lambda: [{"name": name} for name in shared.latent_upscale_modes],
            "script-info": lambda: [script.api_info for runner in runners for script in runner.scripts],
        }

    def init_default_script_args(self, runner: scripts.ScriptRunner) -> list:
        """Values of freshly made components: ui() runs once more for each script, as on the host."""
        args = [0] + [None] * (len(runner.inputs) - 1)
        with gr.Blocks():
            for script in runner.scripts:
                args[script.args_from : script.args_to] = [c.value for c in script.ui(script.is_img2img)]
        return args

    def init_script_args(self, req, runner, from_infotext: dict[int, object]) -> list:
        args = self.default_script_args[runner].copy()
        for index, value in from_infotext.items():
            args[index] = value
        if req.script_name:
            args[0] = script_name_to_index(req.script_name, runner.selectable_scripts) + 1
            script = runner.selectable_scripts[args[0] - 1]
            args[script.args_from : script.args_to] = req.script_args
        for name, given in (req.alwayson_scripts or {}).items():
            script = runner.scripts[script_name_to_index(name, runner.scripts)]
            if "args" in given:  # a positional prefix; more than the script has is ignored
                for i in range(min(script.args_to - script.args_from, len(given["args"]))):
                    args[script.args_from + i] = given["args"][i]
        return args

    def apply_infotext(self, req, tab: str, runner) -> dict[int, object]:
        """Fill what the request leaves out from its `infotext`; returns the scripts' arguments found there."""
        if not req.infotext:
            return {}
        fields, was_set = infotext_utils.paste_fields[tab]["fields"], req.dict(exclude_unset=True)
        params = infotext_utils.parse_generation_parameters(req.infotext)

        def value_of(field):
            value = field.target(params) if callable(field.target) else params.get(field.target)
            kind = req.__fields__[field.api].type_ if field.api in req.__fields__ else type(field.component.value)
            return value if value is None or isinstance(value, kind) else kind(value)

        for field in fields:
            if field.api and field.api not in was_set and (value := value_of(field)) is not None:
                setattr(req, field.api, value)
        index = {component: i for i, component in enumerate(runner.inputs)}
        found = {index[field.component]: value_of(field) for field in fields if field.component in index}
        return {i: value for i, value in found.items() if value is not None}

    def _generate(self, req, tab: str, job: type, runner, **update):
        script_args = self.init_script_args(req, runner, self.apply_infotext(req, tab, runner))
        update["sampler_name"] = req.sampler_name or req.sampler_index
        fields = {name: value for name, value in {**vars(req), **update}.items() if name not in EXTRA}
        script_args = script_args if req.script_name else tuple(script_args)
        processed = processing.run_job(job, fields, runner, script_args)
        images = [encode_pil_to_base64(image) for image in processed.images]
        return {"images": images, "parameters": vars(req), "info": processed.js()}

    def text2imgapi(self, req: Txt2Img):
        return self._generate(req, "txt2img", processing.StableDiffusionProcessingTxt2Img, scripts.scripts_txt2img)

    def img2imgapi(self, req: Img2Img):
        pictures = [Image.open(io.BytesIO(base64.b64decode(image))) for image in req.init_images]
        job, runner = processing.StableDiffusionProcessingImg2Img, scripts.scripts_img2img
        return self._generate(req, "img2img", job, runner, init_images=pictures)

    def interruptapi(self):
        shared.state.interrupt()
        return {}
