"""Failures at random places of a patched pass, and what is in it: whatever there is of methods and parts."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from ways import ways

from hidiffusion_ext.core import Method, Options, Situation, WindowShift
from hidiffusion_ext.core.options import SETTINGS


class Interrupted(BaseException):
    """What the hosts raise for "Interrupt": no Exception."""


class Fault:
    """Raises at the n-th time it is asked, once."""

    def __init__(self, error: type[BaseException], countdown: int) -> None:
        self.error, self.countdown, self.raised = error, countdown, False

    def __call__(self, *_: object, **__: object) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            self.raised = True
            raise self.error


def in_a_module(fault: Fault, unet: nn.Module, stack: ExitStack, choose: random.Random) -> None:
    """Before or after the forward of any module, ahead of our hooks or behind them."""
    modules = list(unet.modules())
    for module in choose.sample(modules, 5):
        before, ahead = choose.random() < 0.5, choose.random() < 0.5
        register = module.register_forward_pre_hook if before else module.register_forward_hook
        stack.callback(register(fault, prepend=ahead).remove)


def while_patching(fault: Fault, unet: nn.Module, stack: ExitStack, choose: random.Random) -> None:
    """When a hook is registered."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    for name in ("register_forward_pre_hook", "register_forward_hook"):
        patch.setattr(nn.Module, name, _after_fault(fault, getattr(nn.Module, name)))


def while_restoring(fault: Fault, unet: nn.Module, stack: ExitStack, choose: random.Random) -> None:
    """Right after a hook is taken off."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    original = RemovableHandle.remove

    def remove(handle: RemovableHandle) -> None:
        original(handle)
        fault()

    patch.setattr(RemovableHandle, "remove", remove)


def in_a_convolution(fault: Fault, unet: nn.Module, stack: ExitStack, choose: random.Random) -> None:
    """In the arithmetic, where the attributes are swapped and the marked tensor is on its way."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(torch.nn.functional, "conv2d", _after_fault(fault, torch.nn.functional.conv2d))


def in_a_resize(fault: Fault, unet: nn.Module, stack: ExitStack, choose: random.Random) -> None:
    """In what the patches themselves do."""
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(torch.nn.functional, "interpolate", _after_fault(fault, torch.nn.functional.interpolate))


PLACES = [in_a_module, while_patching, while_restoring, in_a_convolution, in_a_resize]


def _after_fault(fault: Fault, original: Callable[..., Any]) -> Callable[..., Any]:
    def faulty(*args: Any, **kwargs: Any) -> Any:
        fault()
        return original(*args, **kwargs)

    return faulty


def random_way(method: Method, choose: random.Random) -> tuple[Options, Situation]:
    """All of a method and of what works beside it, or some of that, with other ends."""
    options, situation = choose.choice(ways(method))
    other: dict[str, Any] = {"t1": choose.choice([0.4, 0.7, 1.0]), "t2": choose.choice([0.2, 0.4])}
    for name, setting in SETTINGS.items():
        if isinstance(setting.default, bool) and choose.random() < 0.2:
            other[name] = False
        elif isinstance(setting.default, WindowShift):
            other[name] = choose.choice(list(WindowShift))
    return dataclasses.replace(options, **other), situation
