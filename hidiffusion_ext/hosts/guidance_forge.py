"""Noise-damped guidance on the Forge family.

These hosts hand every result of guidance, and what it was made from, to the functions in the UNet's option
`sampler_post_cfg_function`. A function of ours comes first there for the time of a pass; the host evaluates the
unconditional rows once more for it, as it did the first time: with its batches, areas, masks and ControlNets.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from ..core import Run
from ..core.damped_guidance import damp

POST_CFG = "sampler_post_cfg_function"

SAMPLING_MODULES = ("backend.sampling.sampling_function", "ldm_patched.modules.samplers")
"""Where Forge and Neo, and reForge and Classic, keep `calc_cond_uncond_batch`."""


@contextmanager
def damped_results(model_options: dict[str, Any], run: Run) -> Generator[None, None, None]:
    """`damped_guidance` on the Forge family.

    Args:
        model_options: The options of the UNet that the pass uses.
        run: The pass, whose context is open.
    """
    evaluate = next(sys.modules[name].calc_cond_uncond_batch for name in SAMPLING_MODULES if name in sys.modules)

    def damped(args: dict[str, Any]) -> torch.Tensor:
        guided, strong, uncond = args["denoised"], args["uncond_denoised"], args["uncond"]
        # Without guidance the unconditional rows are not evaluated; the host then says so, or has zeros for them.
        if not run.damped or uncond is None or not strong.any():
            return guided
        with run.base_evaluation():
            _, base = evaluate(args["model"], [], uncond, args["input"], args["sigma"], args["model_options"])
        return damp(torch.cat([guided, strong]), [*range(len(base))] * 2, base)[: len(base)]

    before = model_options.get(POST_CFG)
    model_options[POST_CFG] = [damped, *(before or [])]
    try:
        yield
    finally:
        if before is None:
            del model_options[POST_CFG]
        else:
            model_options[POST_CFG] = before
