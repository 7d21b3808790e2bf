"""The HTTP API under /sdapi/v1."""

from __future__ import annotations

import base64
import io
from contextlib import closing
from threading import Lock

import gradio as gr
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from PIL import Image, PngImagePlugin

from modules import errors, infotext_utils, processing, scripts, sd_models, sd_samplers, sd_schedulers, shared, ui
from modules.api import models


def decode_base64_to_image(encoding: str) -> Image.Image:
    if encoding.startswith("data:image/"):
        encoding = encoding.split(";")[1].split(",")[1]
    try:
        return Image.open(io.BytesIO(base64.b64decode(encoding)))
    except Exception as e:
        raise HTTPException(status_code=500, detail="not an image") from e


def encode_pil_to_base64(image: Image.Image) -> bytes:
    """PNG, with the image's texts (`parameters`: its infotext)."""
    texts = PngImagePlugin.PngInfo()
    for key, value in image.info.items():
        if isinstance(key, str) and isinstance(value, str):
            texts.add_text(key, value)
    out = io.BytesIO()
    image.save(out, format="PNG", pnginfo=texts)
    return base64.b64encode(out.getvalue())


def script_name_to_index(name: str, of: list[scripts.Script]) -> int:
    try:
        return [script.title().lower() for script in of].index(name.lower())
    except Exception as e:
        raise HTTPException(status_code=422, detail=f"no script {name!r}") from e


def report_exceptions(app: FastAPI) -> None:
    """An exception becomes a JSON answer: its own status, or 500."""

    def answer(request: Request, e: Exception) -> JSONResponse:
        if not isinstance(e, HTTPException):
            errors.report(f"{request.method} {request.url} failed", exc_info=True)
        told = {"error": type(e).__name__, "detail": getattr(e, "detail", ""), "errors": str(e)}
        return JSONResponse(told, getattr(e, "status_code", 500))

    async def refused(request: Request, e: HTTPException) -> JSONResponse:
        return answer(request, e)

    async def caught(request: Request, call_next) -> Response:
        try:
            return await call_next(request)
        except Exception as e:
            return answer(request, e)

    app.add_exception_handler(HTTPException, refused)
    app.middleware("http")(caught)


class Api:
    def __init__(self, app: FastAPI, queue_lock: Lock):
        self.app, self.queue_lock = app, queue_lock
        self.credentials = dict(pair.split(":") for pair in (shared.cmd_opts.api_auth or "").split(",") if pair)
        protected = [Depends(self.auth)] if self.credentials else []
        report_exceptions(app)
        for path, endpoint, methods in (
            ("txt2img", self.text2imgapi, ["POST"]),
            ("img2img", self.img2imgapi, ["POST"]),
            ("progress", self.progressapi, ["GET"]),
            ("interrupt", self.interruptapi, ["POST"]),
            ("skip", self.skip, ["POST"]),
            ("options", self.get_config, ["GET"]),
            ("options", self.set_config, ["POST"]),
            ("sd-models", self.get_sd_models, ["GET"]),
            ("samplers", self.get_samplers, ["GET"]),
            ("schedulers", self.get_schedulers, ["GET"]),
            ("upscalers", self.get_upscalers, ["GET"]),
            ("latent-upscale-modes", self.get_latent_upscale_modes, ["GET"]),
            ("memory", self.get_memory, ["GET"]),
            ("script-info", self.get_script_info, ["GET"]),
        ):
            app.add_api_route(f"/sdapi/v1/{path}", endpoint, methods=methods, dependencies=protected)
        if not scripts.scripts_txt2img.scripts or not scripts.scripts_img2img.scripts:
            ui.create_ui()
        self.default_script_args = {
            runner: self.init_default_script_args(runner)
            for runner in (scripts.scripts_txt2img, scripts.scripts_img2img)
        }

    def auth(self, credentials: HTTPBasicCredentials = Depends(HTTPBasic())):
        if self.credentials.get(credentials.username) != credentials.password:
            raise HTTPException(401, "wrong user or password", {"WWW-Authenticate": "Basic"})

    def init_default_script_args(self, runner: scripts.ScriptRunner) -> list:
        """Values of freshly made components: ui() runs twice more for each script, as on the host."""
        args = [None] * max([1, *(script.args_to for script in runner.scripts)])
        args[0] = 0
        with gr.Blocks():
            for script in runner.scripts:
                if script.ui(script.is_img2img):
                    args[script.args_from : script.args_to] = [c.value for c in script.ui(script.is_img2img)]
        return args

    def init_script_args(self, req, runner, selectable: int | None, from_infotext: dict[int, object]) -> list:
        args = self.default_script_args[runner].copy()
        for index, value in from_infotext.items():
            args[index] = value
        if selectable is not None:
            script = runner.selectable_scripts[selectable]
            args[script.args_from : script.args_to] = req.script_args
            args[0] = selectable + 1
        for name, given in (req.alwayson_scripts or {}).items():
            script = runner.scripts[script_name_to_index(name, runner.scripts)]
            if not script.alwayson:
                raise HTTPException(status_code=422, detail=f"{name!r} is not always on")
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
            value = field.function(params) if field.function else params.get(field.label)
            kind = req.__fields__[field.api].type_ if field.api in req.__fields__ else type(field.component.value)
            if value is None or kind is type(None):
                return None
            if isinstance(value, dict) and value.get("__type__") == "generic_update":
                value = value.get("value")
            return value if value is None or isinstance(value, kind) else kind(value)

        for field in fields:
            if field.api and field.api not in was_set and (value := value_of(field)) is not None:
                setattr(req, field.api, value)
        req.override_settings = infotext_utils.get_override_settings(params) | (req.override_settings or {})
        index = {component: i for i, component in enumerate(runner.inputs)}
        found = {index[field.component]: value_of(field) for field in fields if field.component in index}
        return {i: value for i, value in found.items() if value is not None}

    def _generate(self, req, tab: str, job: type, runner, **update):
        from_infotext = self.apply_infotext(req, tab, runner)
        selectable = script_name_to_index(req.script_name, runner.selectable_scripts) if req.script_name else None
        sampler, scheduler = sd_samplers.get_sampler_and_scheduler(req.sampler_name or req.sampler_index, req.scheduler)
        fields = vars(req.copy(update={"sampler_name": sampler, **update}))
        if not fields["scheduler"] and scheduler != "Automatic":
            fields["scheduler"] = scheduler
        script_args = self.init_script_args(req, runner, selectable, from_infotext)
        for name in (*models.EXTRA, "include_init_images"):
            fields.pop(name, None)
        with self.queue_lock, closing(job(sd_model=shared.sd_model, **fields)) as p:
            p.is_api, p.scripts = True, runner
            try:
                shared.state.begin(job=f"scripts_{tab}")
                if selectable is None:
                    p.script_args = tuple(script_args)
                    processed = processing.process_images(p)
                else:
                    p.script_args = script_args
                    processed = runner.run(p, *p.script_args)
            finally:
                shared.state.end()
        images = [encode_pil_to_base64(im) for im in processed.images] if req.send_images else []
        if tab == "img2img" and not req.include_init_images:
            req.init_images = req.mask = None
        return models.ImageResponse(images=images, parameters=vars(req), info=processed.js())

    def text2imgapi(self, req: models.Txt2Img):
        return self._generate(req, "txt2img", processing.StableDiffusionProcessingTxt2Img, scripts.scripts_txt2img)

    def img2imgapi(self, req: models.Img2Img):
        if req.init_images is None:
            raise HTTPException(status_code=404, detail="init_images is missing")
        return self._generate(
            req,
            "img2img",
            processing.StableDiffusionProcessingImg2Img,
            scripts.scripts_img2img,
            mask=decode_base64_to_image(req.mask) if req.mask else None,
            init_images=[decode_base64_to_image(image) for image in req.init_images],
        )

    def progressapi(self):
        """How much of the job's batches and passes is done, 0 to 1."""
        s = shared.state
        return {"progress": min(s.job_no / s.job_count, 1) if s.job_count > 0 else 0}

    def interruptapi(self):
        shared.state.interrupt()
        return {}

    def skip(self):
        shared.state.skip()

    def get_config(self):
        return {key: shared.opts.data.get(key, info.default) for key, info in shared.opts.data_labels.items()}

    def set_config(self, req: dict = Body()):
        name = req.get("sd_model_checkpoint")
        if name is not None and name not in sd_models.checkpoint_aliases:
            raise RuntimeError(f"model {name!r} not found")
        for key, value in req.items():
            shared.opts.set(key, value, is_api=True)

    def get_samplers(self):
        return [{"name": one.name, "aliases": one.aliases, "options": {}} for one in sd_samplers.all_samplers]

    def get_schedulers(self):
        return [{"name": one.name, "label": one.label} for one in sd_schedulers.schedulers]

    def get_upscalers(self):
        return [{"name": one.name, "model_name": None, "scale": 4} for one in shared.sd_upscalers]

    def get_latent_upscale_modes(self):
        return [{"name": name} for name in shared.latent_upscale_modes]

    def get_memory(self):
        return {"ram": {"error": "not looked at"}, "cuda": {"error": "unavailable"}}

    def get_sd_models(self):
        return [
            {
                "title": i.title,
                "model_name": i.name,
                "hash": i.shorthash,
                "sha256": i.sha256,
                "filename": i.filename,
                "config": i.config,
            }
            for i in sd_models.checkpoints_list.values()
        ]

    def get_script_info(self):
        return [
            s.api_info
            for runner in (scripts.scripts_txt2img, scripts.scripts_img2img)
            for s in runner.scripts
            if s.api_info
        ]
