"""Changes what guidance results in, on the Forge family.

These hosts hand every result of guidance, and what it was made from, to the functions in the UNet's option
`sampler_post_cfg_function`. A function of ours comes first there for the time of a pass. Unconditional rows that are
to be evaluated once more are evaluated by the host as it did the first time: with its batches, areas, masks and
ControlNets.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from ..core import Change, Evaluation
from .fallback import Attempt

POST_CFG = "sampler_post_cfg_function"

SAMPLING_MODULES = ("backend.sampling.sampling_function", "ldm_patched.modules.samplers")
"""Where Forge and Neo, and reForge and Classic, keep `calc_cond_uncond_batch`."""


@contextmanager
def changed_results(model_options: dict[str, Any], change: Change, attempt: Attempt) -> Generator[None, None, None]:
    """`changed_guidance` on the Forge family.

    Args:
        model_options: The options of the UNet that the pass uses.
        change, attempt: See there.
    """
    evaluate = next(sys.modules[name].calc_cond_uncond_batch for name in SAMPLING_MODULES if name in sys.modules)

    def changed(args: dict[str, Any]) -> torch.Tensor:
        guided = args["denoised"]

        def make() -> torch.Tensor:
            found, uncond = args["uncond_denoised"], args["uncond"]
            # Without guidance the unconditional rows are not evaluated; hosts then say so, or have zeros for them.
            if uncond is None or found is None or not found.any():
                return guided

            def again() -> torch.Tensor:
                return evaluate(args["model"], [], uncond, args["input"], args["sigma"], args["model_options"])[1]

            return change(Evaluation(guided, found, again))

        return attempt(make, guided)

    before = model_options.get(POST_CFG)
    model_options[POST_CFG] = [changed, *(before or [])]
    try:
        yield
    finally:
        if before is None:
            del model_options[POST_CFG]
        else:
            model_options[POST_CFG] = before
