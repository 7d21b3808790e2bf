"""What every sampler shares."""

from __future__ import annotations

import inspect
from collections import namedtuple
from types import SimpleNamespace

import k_diffusion.sampling
import torch
import torchsde._brownian.brownian_interval as brownian

from modules import rng, shared
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


def images_tensor_to_samples(image: torch.Tensor, approximation=None, model=None) -> torch.Tensor:
    """Images `[B, 3, H, W]` in 0..1 to latents `[B, 4, H/8, W/8]`."""
    model = model or shared.sd_model
    return model.get_first_stage_encoding(model.encode_first_stage(image * 2 - 1))


def decode_first_stage(model, x: torch.Tensor) -> torch.Tensor:
    return model.decode_first_stage(x)


def blended(p, latent, init_latent, mask, nmask, denoiser=None, sigma=None) -> torch.Tensor:
    """The painted part of a latent on the picture it began with, as the hook `on_mask_blend` leaves it."""
    given = SimpleNamespace(current_latent=latent, init_latent=init_latent, mask=mask, nmask=nmask)
    given.blended_latent = latent * nmask + init_latent * mask
    given.denoiser, given.sigma, given.is_final_blend = denoiser, sigma, denoiser is None
    if p.scripts is not None:
        p.scripts.on_mask_blend(p, given)
    return given.blended_latent


def apply_refiner(denoiser, sigma: torch.Tensor) -> bool:
    """Switch to the refiner's checkpoint once its share of the schedule is reached. True if switched just now."""
    from modules import sd_models

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
    with sd_models.SkipWritingToConfig():
        sd_models.reload_model_weights(info=info)
    p.setup_conds()
    denoiser.update_inner_model()
    return True


class TorchHijack:
    """`torch` for the samplers, whose randn_like draws from the job's own noise source."""

    def __init__(self, p):
        self.p = p

    def __getattr__(self, item):
        return getattr(torch, item)

    def randn_like(self, x):
        return self.p.rng.next()


brownian._randn = lambda size, dtype, device, seed: rng.randn_local(seed, size).to(device=device, dtype=dtype)


class Sampler:
    def __init__(self, function):
        self.func = function
        self.config: SamplerData | None = None  # set by create_sampler
        self.p = self.model_wrap = self.model_wrap_cfg = self.sampler_extra_args = self.last_latent = None
        self.conditioning_key = shared.sd_model.model.conditioning_key

    def callback_state(self, d: dict) -> None:
        state.sampling_step = d["i"]

    def launch_sampling(self, steps: int, func):
        self.model_wrap_cfg.steps, self.model_wrap_cfg.total_steps = steps, self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def initialize(self, p) -> None:
        """Bind this sampler to a job."""
        denoiser = self.model_wrap_cfg
        self.p = denoiser.p = p
        denoiser.mask, denoiser.nmask, denoiser.step = getattr(p, "mask", None), getattr(p, "nmask", None), 0
        k_diffusion.sampling.torch = TorchHijack(p)

    def run(self, p, x, last_latent, steps: int, cond, uncond, image_cond, given: dict):
        """Run the sampling function with those of `given` that it takes; what it makes, or the last latent."""
        self.last_latent = last_latent
        self.sampler_extra_args = {
            "cond": cond,
            "uncond": uncond,
            "image_cond": image_cond,
            "cond_scale": p.cfg_scale,
            "s_min_uncond": opts.s_min_uncond if p.s_min_uncond is None else p.s_min_uncond,
        }
        accepted = inspect.signature(self.func).parameters
        kwargs = {name: value for name, value in given.items() if name in accepted}
        kwargs |= {"extra_args": self.sampler_extra_args, "callback": self.callback_state, "disable": True}
        samples = self.launch_sampling(steps, lambda: self.func(self.model_wrap_cfg, x, **kwargs))
        if self.model_wrap_cfg.padded_cond_uncond:
            p.extra_generation_params["Pad conds"] = True
        return samples

    def create_noise_sampler(self, x, sigmas, p):
        seeds = p.all_seeds[p.iteration * p.batch_size : (p.iteration + 1) * p.batch_size]
        return k_diffusion.sampling.BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=seeds)
