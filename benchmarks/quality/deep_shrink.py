"""Deep Shrink, as a reference: the idea of kohya-ss's "Deep Shrink" (2023), for the benchmark only.

For the first part of the sampling the features after the UNet's first downsampler are halved once more, and brought
back where the output blocks reach that level again. Its skip connection stays as it is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from hidiffusion_ext.core import Schedule, UNetMap
from hidiffusion_ext.core.patching import before_forward, change_input, change_output

END = 0.35
"""Share of the steps it is usually active for."""

FACTOR = 0.5


def shrunk_steps(schedule: Schedule, end: float = END) -> range:
    """The steps in which features are shrunk."""
    return range(int(end * schedule.steps))


@contextmanager
def deep_shrink(
    unet: nn.Module, unet_map: UNetMap, schedule: Schedule, end: float = END
) -> Generator[None, None, None]:
    """Patches the UNet while the context is open, for the share `end` of the steps; leaves it as it was."""
    shrunk_after = unet_map.downs[0]
    steps = shrunk_steps(schedule, end)
    active = False
    skips: dict[int, torch.Size] = {}

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal active
        timesteps = args[1] if len(args) > 1 else kwargs["timesteps"]
        active = schedule.step(float(timesteps.max())) in steps
        skips.clear()

    def note(index: int, x: torch.Tensor) -> torch.Tensor:
        skips[index] = x.shape[-2:]
        return x

    def shrink(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=FACTOR, mode="bilinear") if active else x

    def to_skip_after(output: int, x: torch.Tensor, mode: str) -> torch.Tensor:
        size = skips[unet_map.partner(output + 1)]
        return F.interpolate(x, size=size, mode=mode) if active and x.shape[-2:] != size else x

    with ExitStack() as stack:
        before_forward(stack, unet, watch)
        for index, block in enumerate(unet_map.inputs):
            change_output(stack, unet.get_submodule(block.layers[-1]), lambda x, i=index: note(i, x))
        change_input(stack, unet.get_submodule(unet_map.inputs[shrunk_after + 1].layers[0]), shrink)
        for index, block in enumerate(unet_map.outputs):
            if block.up:  # odd sizes: a plain upsampler would miss its skip by one cell
                up = unet.get_submodule(block.up)
                change_input(stack, up, lambda x, i=index: to_skip_after(i, x, "nearest"))
        last = unet_map.partner(shrunk_after) - 1
        restored = unet.get_submodule(unet_map.outputs[last].layers[-1])
        change_output(stack, restored, lambda x: to_skip_after(last, x, "bilinear"))
        yield
