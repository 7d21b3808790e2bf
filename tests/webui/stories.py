"""Jobs of the stand-in without its API, what its UNet is seen to do in them, and neighbours that come and go."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from hidiffusion_ext.core import Method, map_unet
from hidiffusion_ext.core.options import SETTINGS
from hidiffusion_ext.core.parts.raunet import RAUNet
from hidiffusion_ext.core.parts.redilation import Redilation
from hidiffusion_ext.core.parts.relay import Relay
from hidiffusion_ext.core.parts.windows import MSWMSA
from hidiffusion_ext.core.unet_map import UNetMap
from hidiffusion_ext.hosts.conflicts import HYPERTILE
from hidiffusion_ext.webui.infotext import FIRST_PASS, HIRES_PASS
from modules import scripts, sd_models, shared
from modules.processing import StableDiffusionProcessingTxt2Img, process_images

NATIVE = 64
Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        method: None: off.
        width, height: Pixels.
        hires: Whether the job has a hires pass of its own.
        batch: Pictures at once.
        more: Further settings, by name.
    """

    method: Method | None = None
    width: int = 96
    height: int = 96
    hires: bool = False
    batch: int = 1
    more: Settings = ()

    @property
    def settings(self) -> dict[str, Any]:
        return {"enabled": True, "method": self.method, "native_size": NATIVE, **dict(self.more)}


@dataclass(frozen=True)
class Made:
    """What a job made: pixels and texts of its pictures, and what is told of HiDiffusion."""

    pictures: tuple[bytes, ...]
    texts: tuple[str, ...]
    said: dict[str, str]


def unet() -> nn.Module:
    """Of the model in use."""
    return shared.sd_model.model.diffusion_model


def new(job: Job) -> Any:
    """A job of the host's that nothing has been done with."""
    p = StableDiffusionProcessingTxt2Img(prompt="a cat", seed=1, steps=3, sampler_name="Euler a", cfg_scale=5.0)
    p.scripts = scripts.scripts_txt2img
    ask(p, job)
    return p


def ask(p: Any, job: Job) -> None:
    """Asks a job of the host's for something else, as scripts do that make several of one."""
    p.width, p.height, p.batch_size = job.width, job.height, job.batch
    p.enable_hr, p.hr_scale, p.hr_upscaler, p.denoising_strength = job.hires, 1.5, "Latent", 0.7
    arguments = [0, *(getattr(control, "value", None) for control in p.scripts.inputs[1:])]
    place = p.scripts.script("HiDiffusion").args_from
    arguments[place] = job.settings if job.method else False
    p.script_args = tuple(arguments)


def axis(name: str) -> Any:
    """A setting's axis on the host's X/Y/Z plot."""
    plot = next(data.module for data in scripts.scripts_data if data.script_class.__module__ == "xyz_grid.py")
    return next(axis for axis in plot.axis_options if axis.label == f"[HiDiffusion] {SETTINGS[name].key}")


def make(p: Any) -> Made:
    """Has the host make a job's pictures."""
    shared.state.begin(job="story")
    try:
        processed = process_images(p)
    finally:
        shared.state.end()
    said = {key: str(value) for key, value in p.extra_generation_params.items() if "HiDiffusion" in key}
    assert all(str(value) in processed.infotexts[-1] for value in said.values())
    return Made(tuple(image.tobytes() for image in processed.images), tuple(processed.infotexts), said)


class Witness:
    """What the layers of the UNet in use do in a job, seen from outside by torch's hooks on all modules."""

    def __init__(self, p: Any) -> None:
        self._p, self._unet = p, unet()
        self._map: UNetMap = map_unet(self._unet)
        self._attentions = {module for name, module in self._unet.named_modules() if name.endswith(".attn1")}
        convolutions = [module for module in self._unet.modules() if isinstance(module, nn.Conv2d)]
        self._own = {conv: (conv.stride, conv.dilation) for conv in convolutions}
        self._first, self._middle = self._unet.input_blocks[0][0], self._unet.middle_block
        self._call, self._now = torch.empty(0), set[str]()
        self.seen: dict[bool, set[str]] = {False: set(), True: set()}

    @contextmanager
    def looking(self) -> Generator[None, None, None]:
        with ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(self._begin).remove)
            stack.callback(register_module_forward_hook(self._look).remove)
            yield

    def _begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module is self._unet:
            self._call, self._now = args[0], set()

    def _look(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        size = self._call.shape[-2:]
        if module in self._attentions and len(args[0]) == 4 * len(self._call):
            self._now.add(MSWMSA.name)
        if module is self._first and args[0].shape[-2:] != size:
            self._now.add(Relay.name)
        if module in self._own and module.dilation != self._own[module][1] and module.stride == self._own[module][0]:
            self._now.add(Redilation.name)
        if module is self._middle and Relay.name not in self._now:
            for _ in self._map.downs:
                size = torch.Size(-(-side // 2) for side in size)
            if args[0].shape[-2:] != size:
                self._now.add(RAUNet.name)
        if module is self._unet:  # a call that fails comes not this far
            self.seen[self._p.is_hr_pass] |= self._now


SEEN = {RAUNet.name, Redilation.name, MSWMSA.name, Relay.name}
"""What a witness can see."""


def claimed(said: dict[str, str], *, hires: bool) -> set[str]:
    """What a text claims of a pass."""
    active = re.split(r"(?:^|, )no ", said.get(HIRES_PASS if hires else FIRST_PASS, ""))[0]
    return {name for name in SEEN if name in active}


@contextmanager
def at_call(number: int, act: Callable[[], None]) -> Generator[list[int], None, None]:
    """While open, something happens in the UNet's call of that number, from 1; gives how many there were."""
    calls: list[int] = []

    def count(*_: Any) -> None:
        calls.append(len(calls) + 1)
        if calls[-1] >= number:
            act()

    handle = unet().time_embed.register_forward_pre_hook(count)
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def lora() -> Generator[None, None, None]:
    """Other weights in the UNet, in place, and its own again."""
    layers = [unet().input_blocks[3][0].op, unet().middle_block[1].transformer_blocks[0].attn1.to_q]
    own = [layer.weight.clone() for layer in layers]
    for layer in layers:
        layer.weight.add_(0.3 * layer.weight.roll(1, 0))
    try:
        yield
    finally:
        for layer, weight in zip(layers, own):
            layer.weight.copy_(weight)


@contextmanager
def hooks() -> Generator[None, None, None]:
    """Another extension's hooks on all layers, which look on."""
    with ExitStack() as stack:
        for module in unet().modules():
            stack.callback(module.register_forward_pre_hook(lambda *_: None).remove)
            stack.callback(module.register_forward_hook(lambda *_: None).remove)
        yield


@contextmanager
def wrapper() -> Generator[None, None, None]:
    """Another extension's function around the model's evaluation, which calls it."""
    model = shared.sd_model
    own = model.apply_model
    model.apply_model = lambda *args, **kwargs: own(*args, **kwargs)
    try:
        yield
    finally:
        del model.apply_model


@contextmanager
def hypertile() -> Generator[None, None, None]:
    """The host's own HyperTile, beside which there are no windows."""
    attentions = [module for name, module in unet().named_modules() if name.endswith(".attn1")]
    for attention in attentions:
        setattr(attention, HYPERTILE, SimpleNamespace(enabled=True, forward=attention.forward))
    try:
        yield
    finally:
        for attention in attentions:
            delattr(attention, HYPERTILE)


NEIGHBOURS = {change.__name__: change for change in (lora, hooks, wrapper, hypertile)}


def load(checkpoint: str) -> None:
    """What choosing a checkpoint on the page does."""
    shared.opts.data["sd_model_checkpoint"] = sd_models.checkpoint_aliases[checkpoint].title
    sd_models.reload_model_weights()
