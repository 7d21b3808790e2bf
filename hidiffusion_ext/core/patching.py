"""The reversible primitives. Each is entered on an ExitStack and leaves the module as it found it.

A module's hook dicts and attributes are the only things changed: no class, parameter or buffer is replaced, and a
forward only where a part leaves the module's work out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

PreHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]


def before_forward(stack: ExitStack, module: nn.Module, hook: PreHook) -> None:
    """Runs `hook(module, args, kwargs)` before each forward; what it returns replaces the arguments."""
    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    stack.callback(handle.remove)


def change_input(stack: ExitStack, module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Passes the module's first argument through `change` at each forward."""

    def hook(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (change(args[0]), *args[1:]), kwargs

    before_forward(stack, module, hook)


def change_output(stack: ExitStack, module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Passes the module's output through `change` at each forward."""

    def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return change(output)

    handle = module.register_forward_hook(hook)
    stack.callback(handle.remove)


def around_forward(stack: ExitStack, module: nn.Module, wrapper: Callable[..., Any]) -> None:
    """Makes each forward of a module `wrapper(forward, *args, **kwargs)`, which need not call it.

    For what no hook can do: leave a module's work out.
    """
    own, forward = vars(module).get("forward"), module.forward
    vars(module)["forward"] = functools.partial(wrapper, forward)
    if own is None:
        stack.callback(vars(module).pop, "forward")
    else:
        stack.callback(vars(module).update, forward=own)


def swap_attributes(stack: ExitStack, module: nn.Module, attributes: Callable[[], Mapping[str, Any]]) -> None:
    """Gives the module other attributes for the time of each forward: those of `attributes()` that it has.

    The originals are back when the forward returns or raises, and again, whatever happened, when the stack closes.
    """
    originals: dict[str, Any] = {}

    def restore(*_: object) -> None:
        for name, value in originals.items():
            setattr(module, name, value)
        originals.clear()

    def swap(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        restore()
        for name, value in attributes().items():
            if hasattr(module, name):
                originals[name] = getattr(module, name)
                setattr(module, name, value)

    before_forward(stack, module, swap)
    handle = module.register_forward_hook(restore, always_call=True)
    stack.callback(restore)
    stack.callback(handle.remove)
