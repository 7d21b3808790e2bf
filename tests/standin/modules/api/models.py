"""Request bodies, generated from the jobs' fields."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, create_model

from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

NOT_ALLOWED = {
    "sd_model",
    "outpath_samples",
    "outpath_grids",
    "sampler_index",
    "extra_generation_params",
    "overlay_images",
    "do_not_reload_embeddings",
    "seed_enable_extras",
    "prompt_for_display",
    "ddim_discretize",
}
EXTRA = {
    "sampler_index": (str | None, "Euler"),
    "script_name": (str | None, None),
    "script_args": (list, []),
    "send_images": (bool, True),
    "save_images": (bool, False),
    "alwayson_scripts": (dict, {}),
    "force_task_id": (str | None, None),
    "infotext": (str | None, None),
}
TYPES = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "Image": str,
    "list[str]": list,
    "dict[str, Any]": dict,
    "list": list,
}


def _request(name: str, job: type, extra: dict[str, tuple]) -> type[BaseModel]:
    fields = {
        f.name: (TYPES.get(f.type, Any) | None, f.default)
        for f in dataclasses.fields(job)
        if f.init and f.name not in NOT_ALLOWED
    }
    return create_model(name, **fields | EXTRA | extra)


Txt2Img = _request("StableDiffusionProcessingTxt2Img", StableDiffusionProcessingTxt2Img, {})
Img2Img = _request(
    "StableDiffusionProcessingImg2Img",
    StableDiffusionProcessingImg2Img,
    {"init_images": (list | None, None), "mask": (str | None, None), "include_init_images": (bool, False)},
)


class ImageResponse(BaseModel):
    images: list[str]
    parameters: dict
    info: str
