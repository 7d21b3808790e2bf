"""Everything of a UNet that a patch could leave changed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn


def snapshot(unet: nn.Module) -> list[Any]:
    """Every module's type and attributes, the keys of its dictionaries (hooks among them), and which tensors it has, in
    which version.
    """
    state = []
    for name, module in unet.named_modules():
        attributes = {
            key: (type(value), tuple(value)) if isinstance(value, (dict, OrderedDict)) else value
            for key, value in vars(module).items()
        }
        tensors = [(id(t), t._version) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
        state.append((name, type(module), attributes, tensors))
    return state
