"""Where the time of a call goes, by kind of operation: what a patch saves, and what it spends on moving tensors."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from .calls import Method
from .timing import begun

OTHER = "other"

KINDS = {
    "attention": {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_flash_attention_forward",
        "_efficient_attention_forward",
        "_scaled_dot_product_cudnn_attention",
    },
    "convolutions": {"mkldnn_convolution", "cudnn_convolution", "_slow_conv2d_forward", "convolution_overrideable"},
    "matrix products": {"mm", "addmm", "bmm", "baddbmm", "mkldnn_linear"},
    "pointwise and norms": {
        *("add", "add_", "sub", "mul", "mul_", "div", "gelu", "silu", "sigmoid"),
        *("native_layer_norm", "native_group_norm"),
    },
    "copies and resizes": {
        *("copy_", "index_select", "index", "roll", "cat", "clone", "fill_", "constant_pad_nd"),
        *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d", "avg_pool2d", "_adaptive_avg_pool2d"),
    },
}
"""PyTorch's operations by kind, `aten::` left out; what is not here is "other"."""

Shares = dict[str, float]
"""Seconds of one call by kind, in the order of `KINDS`, then the others."""


@torch.inference_mode()
def profile_in_turns(methods: Sequence[Method], repeats: int, device: str) -> dict[tuple[str, str], Shares]:
    """The medians of `repeats` profiled calls of every phase of every method, by method and phase."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    jobs = [(method, phase) for method in methods for phase in method.phases]
    seen: dict[tuple[str, str], list[Shares]] = {(method.name, phase.name): [] for method, phase in jobs}
    for _ in tqdm(range(repeats), unit="turn"):
        for method, phase in jobs:
            with begun(method, phase) as run, profile(activities=activities) as profiler:
                method.call(phase.step, run)
            seen[method.name, phase.name].append(_shares(profiler, device))
    return {
        job: {kind: statistics.median(one[kind] for one in shares) for kind in shares[0]}
        for job, shares in seen.items()
    }


def _shares(profiler: profile, device: str) -> Shares:
    kinds = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}
    seconds: Counter[str] = Counter()
    for event in profiler.key_averages():
        own = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        seconds[kinds.get(event.key, OTHER)] += own / 1e6
    return {kind: seconds[kind] for kind in (*KINDS, OTHER)}


def profile_table(profiles: dict[tuple[str, str], Shares]) -> str:
    """Markdown: seconds by kind, a row per phase."""
    lines = [f"| method | phase | {' | '.join((*KINDS, OTHER))} |", "|---|---|" + "---|" * (len(KINDS) + 1)]
    for (method, phase), shares in profiles.items():
        lines.append(f"| {method} | {phase} | {' | '.join(f'{value:.3f}' for value in shares.values())} |")
    return "\n".join(lines)
