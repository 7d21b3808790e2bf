"""What every sampler shares."""

from __future__ import annotations

import inspect
from collections import namedtuple

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
    if opts.img2img_fix_steps or steps is not None:
        requested = steps or p.steps
        return (int(requested / strength) if p.denoising_strength > 0 else 0), requested - 1
    return p.steps, int(strength * p.steps)


def images_tensor_to_samples(image: torch.Tensor, approximation=None, model=None) -> torch.Tensor:
    """Images `[B, 3, H, W]` in 0..1 to latents `[B, 4, H/8, W/8]`."""
    model = model or shared.sd_model
    return model.get_first_stage_encoding(model.encode_first_stage(image * 2 - 1))


def decode_first_stage(model, x: torch.Tensor) -> torch.Tensor:
    return model.decode_first_stage(x)


def apply_refiner(denoiser, sigma: torch.Tensor) -> bool:
    """Switch to the refiner's checkpoint once its share of the schedule is reached. True if switched just now."""
    from modules import sd_models

    p = denoiser.p
    info, switch_at = p.refiner_checkpoint_info, p.refiner_switch_at
    if opts.refiner_switch_by_sample_steps:
        done = denoiser.step / denoiser.total_steps
    else:
        sigmas = getattr(denoiser.inner_model, "sigmas", None)  # DDIM has none: its sigma is a timestep
        timestep = sigma.max().int() if sigmas is None else (sigmas - sigma.max()).abs().argmin()
        done = (999 - timestep) / 1000
    if (switch_at is not None and done < switch_at) or info is None or shared.sd_model.sd_checkpoint_info == info:
        return False
    if getattr(p, "enable_hr", False):
        excluded = {"first pass": True, "second pass": False}.get(opts.hires_fix_refiner_pass)
        if excluded is p.is_hr_pass:
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
    eta_option_field, eta_infotext_field, eta_default = "eta_ancestral", "Eta", 1.0

    def __init__(self, funcname):
        self.funcname = self.func = funcname
        self.config: SamplerData | None = None  # set by create_sampler
        self.extra_params: list[str] = []
        self.p = self.model_wrap = self.model_wrap_cfg = self.sampler_extra_args = self.last_latent = self.eta = None
        self.s_min_uncond = 0.0
        self.conditioning_key = shared.sd_model.model.conditioning_key

    def callback_state(self, d: dict) -> None:
        state.sampling_step = d["i"]
        shared.total_tqdm.update()

    def launch_sampling(self, steps: int, func):
        self.model_wrap_cfg.steps, self.model_wrap_cfg.total_steps = steps, self.config.total_steps(steps)
        state.sampling_steps, state.sampling_step = steps, 0
        try:
            return func()
        except InterruptedException:
            return self.last_latent

    def initialize(self, p) -> dict:
        """Bind this sampler to a job; gives the arguments that the sampling function takes besides the schedule."""
        denoiser = self.model_wrap_cfg
        self.p = denoiser.p = p
        denoiser.mask, denoiser.nmask, denoiser.step = getattr(p, "mask", None), getattr(p, "nmask", None), 0
        self.eta = p.eta if p.eta is not None else getattr(opts, self.eta_option_field)
        self.s_min_uncond = p.s_min_uncond or 0.0
        k_diffusion.sampling.torch = TorchHijack(p)
        accepted = inspect.signature(self.func).parameters
        kwargs = {}
        if "eta" in accepted:
            kwargs["eta"] = self.eta
            if self.eta != self.eta_default:
                p.extra_generation_params[self.eta_infotext_field] = self.eta
        for name, neutral in (("s_churn", 0.0), ("s_tmin", 0.0), ("s_tmax", float("inf")), ("s_noise", 1.0)):
            if name in self.extra_params and name in accepted:
                kwargs[name] = getattr(p, name)
                if kwargs[name] != neutral:
                    p.extra_generation_params[f"Sigma {name[2:]}"] = kwargs[name]
        return kwargs

    def create_noise_sampler(self, x, sigmas, p):
        if opts.no_dpmpp_sde_batch_determinism:
            return None
        seeds = p.all_seeds[p.iteration * p.batch_size : (p.iteration + 1) * p.batch_size]
        return k_diffusion.sampling.BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=seeds)

    def extra_args(self, p, cond, uncond, image_cond) -> dict:
        self.sampler_extra_args = {
            "cond": cond,
            "image_cond": image_cond,
            "uncond": uncond,
            "cond_scale": p.cfg_scale,
            "s_min_uncond": self.s_min_uncond,
        }
        return self.sampler_extra_args

    def add_infotext(self, p) -> None:
        if self.model_wrap_cfg.padded_cond_uncond:
            p.extra_generation_params["Pad conds"] = True
