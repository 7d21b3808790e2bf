"""What windows cost beyond attention within them: cutting the tokens and putting them back."""

from __future__ import annotations

import statistics
import time

import torch
from ldm.modules.attention import CrossAttention

from fused_attention import use_fused_attention
from hidiffusion_ext.core import Family
from hidiffusion_ext.core.parts.windows import window_partition, window_reverse, window_shift
from ldm_unet import Shape

CELLS = 128
"""A side of the finest map with attention at twice the native size: SD1.5 at 1024x1024, SDXL at 2048x2048."""


@torch.inference_mode()
def window_attention(shape: Shape, repeats: int = 5, cells: int = CELLS) -> dict[str, float]:
    """Median microseconds of the finest self-attention of a guided evaluation, measured in turns: with windows, as a
    patched call has it, and of its four window attentions alone, on tokens that are cut already."""
    level = 1 if shape.family is Family.SDXL else 0
    channels, heads = shape.channels[level], shape.heads[level]
    attention = CrossAttention(channels, heads=heads, dim_head=channels // heads).eval()
    use_fused_attention(attention)
    size = cells, cells
    where = size, window_shift(size, 1)
    tokens = torch.randn(2, cells * cells, channels)
    cut = window_partition(tokens, *where)
    together, alone = [], []
    for _ in range(repeats + 1):
        for seconds, function in (
            (together, lambda: window_reverse(attention(window_partition(tokens, *where)), *where)),
            (alone, lambda: attention(cut)),
        ):
            started = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - started)
    # The first turn warms up.
    return {
        "self-attention in windows": statistics.median(together[1:]) * 1e6,
        "its window attentions alone": statistics.median(alone[1:]) * 1e6,
    }
