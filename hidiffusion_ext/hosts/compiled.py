"""Runs compiled models as they are written for the time of a pass.

Code that `torch.compile` made without our hooks does not look for them, and code that it made with them would outlive
the pass. So for the pass nothing compiled is run and nothing is compiled, whoever asks for it and wherever the compiled
object is kept; afterwards the code from before is used again.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

CAN_PAUSE = hasattr(torch.compiler, "set_stance")
"""PyTorch 2.6 and newer."""


@contextmanager
def eagerly() -> Generator[None, None, None]:
    """While open, what is compiled runs as it is written."""
    if not CAN_PAUSE or "torch._dynamo" not in sys.modules:  # without which nothing can be compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def is_compiled(unet: nn.Module) -> bool:
    """Whether a UNet or any module in it is compiled: wrapped, or in place."""
    return any(
        "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None  # pyright: ignore[reportPrivateUsage]
        for module in unet.modules()
    )
