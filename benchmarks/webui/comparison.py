"""What is asked in a comparison: every picture's payload, and what the plan promises of each arm.

It is settled before the first picture and kept in the results' folder, so that the report needs no WebUI.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .arms import ARMS, HIRES_STRENGTH, Arm
from .host import PLAN, Host, Refusal

CELL = 8
"""Sides of pictures are multiples of so many pixels: one cell of the latent."""

ENLARGEMENT = 2
"""Sides of the pictures, in native sides, where no size is asked for."""

SAMPLERS = "/sdapi/v1/samplers"


LOADING = 600.0
"""Seconds that a host may take to load its model."""


class CannotBegin(Exception):
    """There is nothing to compare; the message says why and what to do."""


@dataclass(frozen=True)
class Size:
    """A picture's size in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class Asked:
    """What the user asks for, the same for every arm.

    Attributes:
        prompts, negative, seeds, steps, sampler, scheduler, cfg, batch, upscaler: As in a payload.
        arms: Names from `ARMS`.
        sizes: Empty: twice the side that the model was made for.
        native_size: That side in pixels; 0: as the extension finds it.
    """

    prompts: Sequence[str]
    negative: str
    seeds: Sequence[int]
    sizes: Sequence[Size]
    arms: Sequence[str]
    steps: int
    sampler: str
    scheduler: str
    cfg: float
    batch: int
    upscaler: str
    native_size: int

    @property
    def settings(self) -> dict[str, Any]:
        """The extension's settings that every arm gets."""
        return {"native_size": self.native_size}

    def payload(self, arm: Arm, prompt: str, seed: int, size: Size, native: int) -> dict[str, Any]:
        """The body of a request to /sdapi/v1/txt2img; `native` is the model's side in pixels."""
        return {
            "prompt": prompt,
            "negative_prompt": self.negative,
            "seed": seed,
            "batch_size": self.batch,
            **self.job(arm, size, native),
            "cfg_scale": self.cfg,
            "alwayson_scripts": {"HiDiffusion": {"args": [arm.arguments(self.settings)]}},
            **({"hr_cfg": self.cfg, "hr_additional_modules": ["Use same choices"]} if arm.hires else {}),  # Forge's
        }

    def job(self, arm: Arm, size: Size, native: int) -> dict[str, Any]:
        """The part of a payload that the plan is asked with, too, and the upscaler."""
        common = {"steps": self.steps, "sampler_name": self.sampler, "scheduler": self.scheduler}
        if not arm.hires:
            return {"width": size.width, "height": size.height, **common}
        first = native_size(size, native)
        return {
            "width": first.width,
            "height": first.height,
            **common,
            "enable_hr": True,
            "hr_resize_x": size.width,
            "hr_resize_y": size.height,
            "denoising_strength": HIRES_STRENGTH,
            "hr_upscaler": self.upscaler,
        }


def native_size(size: Size, native: int) -> Size:
    """The size of the same aspect with about the area of a native square, in whole cells of the latent."""
    short = native * math.sqrt(min(size.width, size.height) / max(size.width, size.height))
    shorter = max(CELL, round(short / CELL) * CELL)
    longer = round(shorter * max(size.width, size.height) / min(size.width, size.height) / CELL) * CELL
    return Size(shorter, longer) if size.width < size.height else Size(longer, shorter)


@dataclass(frozen=True)
class Question:
    """One request: `batch` pictures of one prompt by one arm.

    Attributes:
        arm: Its name.
        size: Of the pictures.
        prompt: Number of the prompt, from 0.
        seed: Of the first picture.
        payload: The request's body.
        key: Tells it from every other question to any host and checkpoint; a name for files.
    """

    arm: str
    size: Size
    prompt: int
    seed: int
    payload: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Promise:
    """What the extension's plan says of an arm at a size before any picture is made.

    Attributes:
        mark: In words, such as "up to 1.7 times as fast".
        advice: A sentence about what would be better, or empty.
    """

    mark: str
    advice: str


@dataclass(frozen=True)
class Comparison:
    """Everything that is settled before the first picture.

    Attributes:
        asked: By the user; its sizes are never empty.
        checkpoint: Family and name of the checkpoint that the WebUI has, as the plan names it.
        facts: What the WebUI tells of the machine, by name.
        questions: In the order they are asked: all arms of a prompt after another.
        promises: By arm and size, as `promise_key` says; none for an arm that has the extension off.
    """

    asked: Asked
    checkpoint: str
    facts: Mapping[str, str]
    questions: Sequence[Question]
    promises: Mapping[str, Promise]

    def promise(self, arm: str, size: Size) -> Promise | None:
        """What is promised of an arm at a size, if anything."""
        return self.promises.get(f"{arm} {size}")

    def save(self, file: Path) -> None:
        """Writes it as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Comparison:
        """What `save` wrote.

        Raises:
            OSError, ValueError, KeyError, TypeError: if there is none, or of another form.
        """
        told = json.loads(file.read_text(encoding="utf-8"))
        asked = {**told["asked"], "sizes": [Size(**size) for size in told["asked"]["sizes"]]}
        questions = [Question(**{**one, "size": Size(**one["size"])}) for one in told["questions"]]
        promises = {key: Promise(**one) for key, one in told["promises"].items()}
        return cls(Asked(**asked), told["checkpoint"], told["facts"], questions, promises)


def settle(host: Host, asked: Asked, facts: Mapping[str, str]) -> Comparison:
    """Asks the host for its checkpoint, the native size and the plans, and works out every question.

    Args:
        host: Where the pictures will be made.
        asked: By the user.
        facts: What the host tells of the machine.

    Raises:
        CannotBegin: if the extension is not there or cannot be used with the model.
        Refusal, Gone, TooLate: if the host does not answer as one.
    """
    _check_names(host, asked)
    told = _plan(host, asked)
    native, checkpoint = told["passes"][0]["native"], told["model"]
    sizes = asked.sizes or [Size(ENLARGEMENT * native, ENLARGEMENT * native)]
    asked = replace(asked, sizes=sizes)
    arms = [ARMS[name] for name in asked.arms]
    questions = [
        _question(host, checkpoint, arm, size, number, seed, asked.payload(arm, prompt, seed, size, native))
        for size in sizes
        for seed in asked.seeds
        for number, prompt in enumerate(asked.prompts)
        for arm in arms
    ]
    promises = {
        f"{arm.name} {size}": _promise(host, asked, arm, size, native)
        for arm in arms
        if arm.settings is not None
        for size in sizes
    }
    facts = {"model": checkpoint.partition(" (")[0], "native side": f"{native} pixels", **facts}
    return Comparison(asked, checkpoint, facts, questions, promises)


def _question(
    host: Host, checkpoint: str, arm: Arm, size: Size, number: int, seed: int, payload: Mapping[str, Any]
) -> Question:
    whole = json.dumps([host.url, checkpoint, payload], sort_keys=True)
    digest = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return Question(arm.name, size, number, seed, payload, f"{arm.name.lower()}-{size}-seed{seed}-{digest}")


def _plan(host: Host, asked: Asked) -> dict[str, Any]:
    """The plan of any picture, for what it tells of the model."""
    try:
        told = host.get(PLAN, asked.settings)
    except Refusal as error:
        if error.status != 404:
            raise
        raise CannotBegin(f"This WebUI has no HiDiffusion extension, or an old one: it has no {PLAN}.") from None
    if told["refused"]:  # some hosts load their model for the first picture
        host.post("/sdapi/v1/txt2img", {"width": 64, "height": 64, "steps": 1}, LOADING)
        told = host.get(PLAN, asked.settings)
    if told["refused"]:
        raise CannotBegin(f"HiDiffusion cannot be used with the checkpoint that is loaded: {told['refused']}.")
    return told


def _check_names(host: Host, asked: Asked) -> None:
    """That the host knows what is asked for by name; a list that it does not keep is left alone.

    Raises:
        CannotBegin: if it does not, or has no API.
    """
    try:
        host.get(SAMPLERS)
    except Refusal as error:
        if error.status == 401:
            raise CannotBegin("This WebUI wants a user and a password: give them with --auth USER:PASSWORD.") from None
        raise CannotBegin(f"This WebUI has no API ({error.kind}): start it with --api.") from None
    for path, kind, name in (
        (SAMPLERS, "sampler", asked.sampler),
        ("/sdapi/v1/schedulers", "scheduler", asked.scheduler),
        ("/sdapi/v1/upscalers", "upscaler", asked.upscaler),
    ):
        listed = host.told(path) or []
        shown = [one.get("label") or one["name"] for one in listed]
        known = {*shown, *(text for one in listed for text in (one["name"], *(one.get("aliases") or ())))}
        if known and name not in known:
            raise CannotBegin(f"This WebUI knows no {kind} {name!r}; it has {', '.join(shown)}.")


def _promise(host: Host, asked: Asked, arm: Arm, size: Size, native: int) -> Promise:
    """What the plan says of an arm; the host's own words where it cannot do what the arm asks for."""
    job = {name: value for name, value in asked.job(arm, size, native).items() if name != "hr_upscaler"}
    settings = {name: value for name, value in arm.arguments(asked.settings).items() if name != "enabled"}
    try:
        told = host.get(PLAN, {**job, **settings})
    except Refusal as error:
        return Promise(str(error), "")
    return Promise(told["refused"] or told["mark"], told["advice"])
