"""Whole jobs: from prompts to pictures, in one pass or in two, or without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.Image import Resampling

from demo_model import NATIVE, DemoModel, Spacing, evenly_spaced
from hidiffusion_ext.core import Schedule
from hidiffusion_ext.core.native_first import first_size, steps_needed
from hidiffusion_ext.core.options import FasterSecondPass
from hidiffusion_ext.core.sizes import CELL, Size

from .cells import (
    FEW_STEPS,
    GUIDED,
    GUIDED_AT,
    HELPERS,
    LATE,
    LEFT_OUT,
    NATIVE_FIRST,
    NATIVE_ROW,
    NOTHING,
    REFERENCE_ROW,
    RESTART,
    RESTARTED_AT,
    SPACED,
    STRENGTHS,
    STRONG,
    TRUE_DECODED_ROW,
    TRUE_ROW,
    USUAL_STEPS,
    guided,
    in_steps,
    leaving_out,
    restarted,
    second_pass,
    spaced,
)
from .methods import METHODS, MakePatch, over_picture
from .rendering import rendered
from .spacings import SPACINGS


@dataclass
class Kept:
    """First passes, made once: many cells go over the same native pictures again."""

    _rows: dict[tuple[object, ...], torch.Tensor] = field(default_factory=dict)

    def rows(self, keys: Sequence[tuple[object, ...]], make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensors with these keys, stacked: kept ones if all are there, otherwise those that `make` returns."""
        if not all(key in self._rows for key in keys):
            self._rows |= dict(zip(keys, make(), strict=True))
        return torch.stack([self._rows[key] for key in keys])


@dataclass(frozen=True)
class Request:
    """What a job is to draw.

    Attributes:
        prompts, seeds: One each per picture.
        size: (height, width) in pixels.
        steps, guidance: Of the sampling.
        kept: First passes of requests with the same guidance.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    size: Size
    steps: int
    guidance: float
    kept: Kept = field(default_factory=Kept)

    @property
    def settings(self) -> dict[str, Any]:
        return {"steps": self.steps, "guidance": self.guidance}


Job = Callable[[DemoModel, Request], torch.Tensor]
"""`(model, request) -> pictures [B, 3, H, W], 0 to 1`"""


def in_one_pass(method: MakePatch, spacing: Spacing = evenly_spaced) -> Job:
    """The pictures at their size at once."""

    def job(model: DemoModel, request: Request) -> torch.Tensor:
        patch, settings = method(model, request.size, request.seeds[0]), request.settings
        return model.sample(request.prompts, request.seeds, request.size, patch=patch, spacing=spacing, **settings)

    return job


def with_steps(job: Job, steps: int) -> Job:
    """The same with other steps than asked for."""
    return lambda model, request: job(model, replace(request, steps=steps))


def enlarged(model: DemoModel, request: Request) -> torch.Tensor:
    """Native pictures, enlarged: what most people do."""
    return resized(model.decode(native_latents(model, request)), request.size)


def with_second_pass(
    strength: float,
    helper: str = "MSW-MSA only",
    faster: FasterSecondPass = FasterSecondPass.ON,
    in_pixels: bool = True,
    **guidance: float,
) -> Job:
    """Native pictures, enlarged as they are (Lanczos) or as latents (bilinear), and a second pass over them.

    Args:
        strength, helper, guidance: Of the second pass; with the helper "direct" nothing is patched or left out.
        faster: What is left out.
        in_pixels: Whether pictures are enlarged, or latents.
    """
    method = over_picture(helper, faster, **guidance)
    short = helper != "direct" and faster.has(FasterSecondPass.SHORT)

    def job(model: DemoModel, request: Request) -> torch.Tensor:
        prompts, seeds = request.prompts, request.seeds
        latent = request.size[0] // CELL, request.size[1] // CELL
        restart = strength if short else None
        if in_pixels:
            begin = enlarged_latents(model, request, restart)
        else:
            begin = F.interpolate(native_latents(model, request, restart), size=latent, mode="bilinear")
        settings: dict[str, Any] = {**request.settings, "patch": method(model, request.size, seeds[0])}
        return model.decode(model.draw(prompts, seeds, latent, begin=begin, strength=strength, **settings))

    return job


def native_latents(model: DemoModel, request: Request, restart: float | None = None) -> torch.Tensor:
    """The latents [B, 4, h, w] of native pictures of the request's aspect, of the size that Native first gives them.

    Args:
        model, request: Whose.
        restart: The strength of a second pass that makes the last steps' work anew, without which they end.
    """
    height, width = request.size
    native_width, native_height = first_size(width, height, NATIVE)
    native = native_height // CELL, native_width // CELL
    until = None
    if restart is not None:
        noise = Schedule([999 * restart]).levels.sigma(999 * restart)
        until = partial(steps_needed, restart=noise, enlargement=(height * width) ** 0.5 / NATIVE)
    pictures = zip(request.prompts, request.seeds, strict=True)
    keys = [("native", native, restart and request.size, request.steps, prompt, seed) for prompt, seed in pictures]
    settings: dict[str, Any] = {**request.settings, "until": until}
    return request.kept.rows(keys, lambda: model.draw(request.prompts, request.seeds, native, **settings))


def enlarged_latents(model: DemoModel, request: Request, restart: float | None = None) -> torch.Tensor:
    """The latents [B, 4, H, W] of native pictures that were enlarged to the request's size; `restart` as before."""

    def make() -> torch.Tensor:
        pictures = model.decode(native_latents(model, request, restart))
        return model.encode(resized(pictures, request.size))

    pictures = zip(request.prompts, request.seeds, strict=True)
    keys = [("enlarged", request.size, restart, request.steps, prompt, seed) for prompt, seed in pictures]
    return request.kept.rows(keys, make)


def true_rendering(decoded: bool) -> Job:
    """No model's pictures but true ones: as they are, or as the model's autoencoder gives them back."""

    def job(model: DemoModel, request: Request) -> torch.Tensor:
        pictures = true_pictures(request)
        return model.decode(model.encode(pictures)) if decoded else pictures

    return job


def true_restarted(strength: float) -> Job:
    """True pictures, noised and denoised by the model as it is: what it cannot keep it has not learnt."""

    def job(model: DemoModel, request: Request) -> torch.Tensor:
        begin = model.encode(true_pictures(request))
        latent = request.size[0] // CELL, request.size[1] // CELL
        settings = {**request.settings, "begin": begin, "strength": strength}
        return model.decode(model.draw(request.prompts, request.seeds, latent, **settings))

    return job


def true_pictures(request: Request) -> torch.Tensor:
    """True renderings [B, 3, H, W], 0 to 1, of the prompts and seeds."""
    drawn = np.stack([rendered(*each, request.size) for each in zip(request.prompts, request.seeds, strict=True)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2) / 255


def resized(pictures: torch.Tensor, size: Size) -> torch.Tensor:
    """Pictures [B, 3, H, W], 0 to 1, at another (height, width) by Lanczos' kernel, in 255 steps as files and WebUIs
    have them.
    """
    pixels = (pictures.float() * 255).round().byte().permute(0, 2, 3, 1).numpy()
    large = np.stack(
        [np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Resampling.LANCZOS)) for picture in pixels]
    )
    return torch.from_numpy(large).permute(0, 3, 1, 2) / 255


JOBS: dict[str, Job] = {
    NATIVE_ROW: in_one_pass(METHODS["direct"]),
    REFERENCE_ROW: in_one_pass(METHODS["direct"]),
    TRUE_ROW: true_rendering(decoded=False),
    TRUE_DECODED_ROW: true_rendering(decoded=True),
    **{restarted(strength): true_restarted(strength) for strength in RESTARTED_AT},
    "native + Lanczos": enlarged,
    **{name: in_one_pass(method) for name, method in METHODS.items()},
    **{
        spaced(name, scheduler): in_one_pass(METHODS[name], spacing)
        for name in SPACED
        for scheduler, spacing in SPACINGS.items()
    },
    **{
        second_pass(strength, helper, in_pixels): with_second_pass(strength, helper, in_pixels=in_pixels)
        for in_pixels in (True, False)
        for strength in STRENGTHS
        for helper in HELPERS
    },
    leaving_out(NOTHING, STRONG): with_second_pass(0.7, "HiDiffusion", FasterSecondPass.OFF),
    **{
        guided(strength, guidance): with_second_pass(strength, split_guidance=split, anchor=anchor)
        for strength in GUIDED_AT
        for guidance, (split, anchor) in GUIDED.items()
    },
    NATIVE_FIRST: with_second_pass(RESTART),
    **{leaving_out(what): with_second_pass(RESTART, faster=option) for what, option in LEFT_OUT.items()},
}
JOBS |= {
    in_steps(name, steps): with_steps(JOBS[name], steps)
    for names, numbers in ((("direct", *SPACED), FEW_STEPS), (LATE, (USUAL_STEPS,)))
    for name in names
    for steps in numbers
}
"""Every method of a cell."""
