"""The k-diffusion samplers."""

from __future__ import annotations

import inspect

import k_diffusion.external
import k_diffusion.sampling
import torch

from modules import sd_samplers_common, sd_samplers_extra, sd_schedulers, shared
from modules.script_callbacks import ExtraNoiseParams, extra_noise_callback
from modules.sd_samplers_cfg_denoiser import CFGDenoiser
from modules.shared import opts

KARRAS = {"scheduler": "karras"}
samplers_k_diffusion = [
    ("DPM++ 2M", "sample_dpmpp_2m", ["k_dpmpp_2m"], KARRAS),
    ("DPM++ SDE", "sample_dpmpp_sde", ["k_dpmpp_sde"], KARRAS | {"second_order": True, "brownian_noise": True}),
    ("DPM++ 2M SDE", "sample_dpmpp_2m_sde", ["k_dpmpp_2m_sde"], {"scheduler": "exponential", "brownian_noise": True}),
    ("DPM++ 2S a", "sample_dpmpp_2s_ancestral", ["k_dpmpp_2s_a"], KARRAS | {"uses_ensd": True, "second_order": True}),
    ("Euler a", "sample_euler_ancestral", ["k_euler_a", "k_euler_ancestral"], {"uses_ensd": True}),
    ("Euler", "sample_euler", ["k_euler"], {}),
    ("LMS", "sample_lms", ["k_lms"], {}),
    ("Heun", "sample_heun", ["k_heun"], {"second_order": True}),
    ("DPM2", "sample_dpm_2", ["k_dpm_2"], KARRAS | {"discard_next_to_last_sigma": True, "second_order": True}),
    (
        "DPM2 a",
        "sample_dpm_2_ancestral",
        ["k_dpm_2_a"],
        KARRAS | {"discard_next_to_last_sigma": True, "uses_ensd": True, "second_order": True},
    ),
    ("DPM fast", "sample_dpm_fast", ["k_dpm_fast"], {"uses_ensd": True}),
    ("DPM adaptive", "sample_dpm_adaptive", ["k_dpm_ad"], {"uses_ensd": True}),
    ("Restart", sd_samplers_extra.restart_sampler, ["restart"], KARRAS | {"second_order": True}),
]
samplers_data_k_diffusion = [
    sd_samplers_common.SamplerData(label, lambda model, f=funcname: KDiffusionSampler(f, model), aliases, options)
    for label, funcname, aliases, options in samplers_k_diffusion
]
CHURN = ["s_churn", "s_tmin", "s_tmax", "s_noise"]
sampler_extra_params = {"sample_euler": CHURN, "sample_heun": CHURN, "sample_dpm_2": CHURN}
for _name in ("dpm_fast", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde"):
    sampler_extra_params[f"sample_{_name}"] = ["s_noise"]


class CFGDenoiserKDiffusion(CFGDenoiser):
    @property
    def inner_model(self):
        if self.model_wrap is None:
            v = shared.sd_model.parameterization == "v"
            wrap = k_diffusion.external.CompVisVDenoiser if v else k_diffusion.external.CompVisDenoiser
            self.model_wrap = wrap(shared.sd_model, quantize=opts.enable_quantization)
        return self.model_wrap


class KDiffusionSampler(sd_samplers_common.Sampler):
    def __init__(self, funcname, sd_model, options=None):
        super().__init__(funcname)
        self.extra_params = sampler_extra_params.get(funcname, [])
        self.func = funcname if callable(funcname) else getattr(k_diffusion.sampling, funcname)
        self.model_wrap_cfg = CFGDenoiserKDiffusion(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_sigmas(self, p, steps: int) -> torch.Tensor:
        """The whole schedule of `steps` steps, `[steps + 1]`; notes its type in the job's infotext."""
        discard = self.config is not None and self.config.options.get("discard_next_to_last_sigma", False)
        if opts.always_discard_next_to_last_sigma and not discard:
            discard = p.extra_generation_params["Discard penultimate sigma"] = True
        steps += int(discard)
        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        if name == "Automatic":
            name = self.config.options.get("scheduler")
        scheduler = sd_schedulers.schedulers_map.get(name)
        if p.sampler_noise_scheduler_override:
            sigmas = p.sampler_noise_scheduler_override(steps)
        elif scheduler is None or scheduler.function is None:
            sigmas = self.model_wrap.get_sigmas(steps)
        else:
            if not p.is_hr_pass:
                p.extra_generation_params["Schedule type"] = scheduler.label
            elif scheduler.label != p.extra_generation_params.get("Schedule type"):
                p.extra_generation_params["Hires schedule type"] = scheduler.label
            kwargs = {
                "sigma_min": opts.sigma_min or self.model_wrap.sigmas[0].item(),
                "sigma_max": opts.sigma_max or self.model_wrap.sigmas[-1].item(),
            }
            if scheduler.default_rho != -1 and opts.rho not in (0, scheduler.default_rho):
                kwargs["rho"] = opts.rho
            if scheduler.need_inner_model:
                kwargs["inner_model"] = self.model_wrap
            sigmas = scheduler.function(n=steps, **kwargs, device="cpu")
        return (torch.cat([sigmas[:-2], sigmas[-1:]]) if discard else sigmas).cpu()

    def sample_img2img(
        self, p, x, noise, conditioning, unconditional_conditioning, steps=None, image_conditioning=None
    ):
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)
        sched = sigmas[steps - t_enc - 1 :]
        xi = x + noise * sched[0]
        if opts.img2img_extra_noise > 0:
            p.extra_generation_params["Extra noise"] = opts.img2img_extra_noise
            extra = ExtraNoiseParams(noise, x, xi)
            extra_noise_callback(extra)
            xi = xi + extra.noise * opts.img2img_extra_noise
        self.model_wrap_cfg.init_latent = x
        given = {"sigma_min": sched[-2], "sigma_max": sched[0], "n": len(sched) - 1, "sigmas": sched}
        return self._sample(
            p, xi, x, sigmas, given, t_enc + 1, conditioning, unconditional_conditioning, image_conditioning
        )

    def sample(self, p, x, conditioning, unconditional_conditioning, steps=None, image_conditioning=None):
        steps = steps or p.steps
        sigmas = self.get_sigmas(p, steps)
        x = x * (torch.sqrt(1.0 + sigmas[0] ** 2) if opts.sgm_noise_multiplier else sigmas[0])
        given = {
            "sigma_min": self.model_wrap.sigmas[0].item(),
            "sigma_max": self.model_wrap.sigmas[-1].item(),
            "n": steps,
            "sigmas": sigmas,
        }
        return self._sample(p, x, x, sigmas, given, steps, conditioning, unconditional_conditioning, image_conditioning)

    def _sample(self, p, x, last_latent, sigmas, given: dict, steps: int, cond, uncond, image_cond):
        """Run the sampling function with those of `given` that it takes."""
        accepted = inspect.signature(self.func).parameters
        kwargs = self.initialize(p) | {name: value for name, value in given.items() if name in accepted}
        if self.config.options.get("brownian_noise", False):
            kwargs["noise_sampler"] = self.create_noise_sampler(x, sigmas, p)
        self.last_latent = last_latent
        extra_args = self.extra_args(p, cond, uncond, image_cond)
        samples = self.launch_sampling(
            steps,
            lambda: self.func(
                self.model_wrap_cfg, x, extra_args=extra_args, disable=True, callback=self.callback_state, **kwargs
            ),
        )
        self.add_infotext(p)
        return samples
