"""What every sampler shares."""

from __future__ import annotations

import inspect
from collections import namedtuple
from types import SimpleNamespace

import k_diffusion.sampling
import torch

from modules import sd_models, shared
from modules.shared import opts, state


class InterruptedException(BaseException):
    """Ends sampling early; the last latent becomes the result."""


class SamplerData(namedtuple("SamplerData", ["name", "constructor", "aliases", "options"])):
    def total_steps(self, steps: int) -> int:
        return steps * 2 if self.options.get("second_order", False) else steps


def setup_img2img_steps(p, steps: int | None = None) -> tuple[int, int]:
    """(length of the whole schedule, index of the last step that is run): the strength cuts the schedule's front."""
    strength = min(p.denoising_strength, 0.999)
    if steps is None:
        return p.steps, int(strength * p.steps)
    return (int(steps / strength) if p.denoising_strength > 0 else 0), steps - 1


def apply_refiner(denoiser, sigma: torch.Tensor) -> bool:
    """Switch to the refiner's checkpoint once its share of the schedule is reached. True if switched just now."""
    p = denoiser.p
    info, switch_at = p.refiner_checkpoint_info, p.refiner_switch_at
    sigmas = getattr(denoiser.inner_model, "sigmas", None)  # DDIM has none: its sigma is a timestep
    timestep = sigma.max().int() if sigmas is None else (sigmas - sigma.max()).abs().argmin()
    done = (999 - timestep) / 1000
    if (switch_at is not None and done < switch_at) or info is None or shared.sd_model.sd_checkpoint_info == info:
        return False
    if getattr(p, "enable_hr", False) and not p.is_hr_pass:
        return False
    p.extra_generation_params |= {"Refiner": info.short_title, "Refiner switch at": switch_at}
    sd_models.reload_model_weights(info=info)
    p.setup_conds()
    denoiser.update_inner_model()
    return True


class Sampler:
    """A sampling function and what it needs in a job.

    A kind of sampler says with which `denoiser` it works, and by `begin` and `begin_over` where it begins and what its
    function is given of the schedule.
    """

    def __init__(self, function, sd_model):
        self.func = function
        self.config: SamplerData | None = None  # set by create_sampler
        self.p = self.sampler_extra_args = self.last_latent = None
        self.model_wrap_cfg = self.denoiser(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def callback_state(self, d: dict) -> None:
        state.sampling_step = d["i"]

    def initialize(self, p) -> None:
        """Bind this sampler to a job."""
        self.p = self.model_wrap_cfg.p = p
        self.model_wrap_cfg.step = 0
        # Samplers draw from the job's own noise.
        k_diffusion.sampling.torch = SimpleNamespace(**vars(torch) | {"randn_like": lambda x: p.rng.next()})

    def sample(self, p, x, conditioning, unconditional_conditioning, steps=None, image_conditioning=None):
        (start, given), steps = self.begin(p, x, p.steps), p.steps
        return self._run(p, start, start, steps, (conditioning, unconditional_conditioning, image_conditioning), given)

    def sample_img2img(
        self, p, x, noise, conditioning, unconditional_conditioning, steps=None, image_conditioning=None
    ):
        steps, t_enc = setup_img2img_steps(p, steps)
        start, given = self.begin_over(p, x, noise, steps, t_enc)
        conds = conditioning, unconditional_conditioning, image_conditioning
        return self._run(p, start, x, t_enc + 1, conds, given)

    def _run(self, p, x, last_latent, steps: int, conds: tuple, given: dict):
        """Run the sampling function with those of `given` that it takes; what it makes, or the last latent."""
        self.initialize(p)
        self.last_latent = last_latent
        least = opts.s_min_uncond if p.s_min_uncond is None else p.s_min_uncond
        self.sampler_extra_args = dict(zip(("cond", "uncond", "image_cond"), conds))
        self.sampler_extra_args |= {"cond_scale": p.cfg_scale, "s_min_uncond": least}
        accepted = inspect.signature(self.func).parameters
        kwargs = {name: value for name, value in given.items() if name in accepted}
        kwargs |= {"extra_args": self.sampler_extra_args, "callback": self.callback_state, "disable": True}
        self.model_wrap_cfg.steps, self.model_wrap_cfg.total_steps = steps, self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return self.func(self.model_wrap_cfg, x, **kwargs)
        except InterruptedException:
            return self.last_latent
