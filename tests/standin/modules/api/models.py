"""Request bodies, generated from the jobs' fields."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import BaseModel, create_model

from modules.processing import StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

EXTRA = {
    "sampler_index": (str | None, "Euler"),
    "alwayson_scripts": (dict, {}),
    "script_name": (str | None, None),
    "script_args": (list, []),
    "infotext": (str | None, None),
    "send_images": (bool, True),
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
        f.name: (TYPES.get(f.type, Any) | None, f.default) for f in dataclasses.fields(job) if f.name != "sd_model"
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
