"""The k-diffusion samplers."""

from __future__ import annotations

import k_diffusion.external
import k_diffusion.sampling
import torch

from modules import sd_samplers_common, sd_samplers_extra, sd_schedulers, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser

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


class CFGDenoiserKDiffusion(CFGDenoiser):
    def wrap(self):
        v = shared.sd_model.parameterization == "v"
        return (k_diffusion.external.CompVisVDenoiser if v else k_diffusion.external.CompVisDenoiser)(shared.sd_model)


class KDiffusionSampler(sd_samplers_common.Sampler):
    def __init__(self, function, sd_model):
        super().__init__(function if callable(function) else getattr(k_diffusion.sampling, function))
        self.model_wrap_cfg = CFGDenoiserKDiffusion(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_sigmas(self, p, steps: int) -> torch.Tensor:
        """The whole schedule of `steps` steps, `[steps + 1]`; notes its type in the job's infotext."""
        options = self.config.options
        discard = options.get("discard_next_to_last_sigma", False)
        steps += int(discard)
        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        scheduler = sd_schedulers.schedulers_map.get(options.get("scheduler") if name == "Automatic" else name)
        if p.sampler_noise_scheduler_override:
            sigmas = p.sampler_noise_scheduler_override(steps)
        elif scheduler is None:
            sigmas = self.model_wrap.get_sigmas(steps)
        else:
            noted = p.extra_generation_params
            if not p.is_hr_pass:
                noted["Schedule type"] = scheduler.label
            elif scheduler.label != noted.get("Schedule type"):
                noted["Hires schedule type"] = scheduler.label
            least, most = (self.model_wrap.sigmas[i].item() for i in (0, -1))
            model = {"inner_model": self.model_wrap} if scheduler.need_inner_model else {}
            sigmas = scheduler.function(n=steps, sigma_min=least, sigma_max=most, device="cpu", **model)
        return (torch.cat([sigmas[:-2], sigmas[-1:]]) if discard else sigmas).cpu()

    def sample_img2img(
        self, p, x, noise, conditioning, unconditional_conditioning, steps=None, image_conditioning=None
    ):
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        sigmas = self.get_sigmas(p, steps)
        kept = sigmas[steps - t_enc - 1 :]
        self.model_wrap_cfg.init_latent = x
        given = {"sigmas": kept, "n": len(kept) - 1, "sigma_max": kept[0], "sigma_min": kept[-2]}
        start, conds = x + noise * kept[0], (conditioning, unconditional_conditioning, image_conditioning)
        return self._sample(p, start, x, t_enc + 1, conds, given, sigmas)

    def sample(self, p, x, conditioning, unconditional_conditioning, steps=None, image_conditioning=None):
        steps = steps or p.steps
        sigmas, known = self.get_sigmas(p, steps), self.model_wrap.sigmas
        given = {"sigmas": sigmas, "n": steps, "sigma_max": known[-1].item(), "sigma_min": known[0].item()}
        start, conds = x * sigmas[0], (conditioning, unconditional_conditioning, image_conditioning)
        return self._sample(p, start, start, steps, conds, given, sigmas)

    def _sample(self, p, x, last_latent, steps: int, conds: tuple, given: dict, sigmas):
        self.initialize(p)
        given["eta"] = 1.0  # the host's; k-diffusion's own is another one for some
        given |= {"s_churn": p.s_churn, "s_tmin": p.s_tmin, "s_tmax": p.s_tmax or float("inf")}
        if self.config.options.get("brownian_noise", False):
            given["noise_sampler"] = self.create_noise_sampler(x, sigmas, p)
        return self.run(p, x, last_latent, steps, *conds, given)
