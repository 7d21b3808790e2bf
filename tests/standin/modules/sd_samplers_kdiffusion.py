"""The k-diffusion samplers."""

from __future__ import annotations

import k_diffusion.external
import k_diffusion.sampling as k
import torch

from modules import sd_samplers_common, sd_schedulers, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser


@torch.no_grad()
def restart_sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Restart sampling (Xu et al. 2023, algorithm 1) on Heun steps: the noise level rises again once or twice.

    From 20 steps on, at sigma 0.1, up to 2 again: once with 9 steps, or from 36 steps on twice with a quarter.
    """
    karras, steps = k.get_sigmas_karras, len(sigmas) - 1
    length, times = (0, 0) if steps < 20 else (9, 1) if steps < 36 else (steps // 4, 2)
    if times:
        sigmas = karras(steps - length * times, sigmas[-2].item(), sigmas[0].item(), device=x.device)

    def nearest(value: float) -> int:
        return int((sigmas - value).abs().argmin())

    pairs = list(zip(sigmas[:-1], sigmas[1:]))
    if times and nearest(2) < nearest(0.1):
        low, top = sigmas[nearest(0.1)].item(), sigmas[nearest(2)].item()
        again = karras(length + 1, low, top, device=x.device)[:-1]
        pairs[nearest(0.1) : nearest(0.1)] = list(zip(again[:-1], again[1:])) * times

    reached, ones, extra_args = pairs[0][0], x.new_ones([x.shape[0]]), extra_args or {}
    for i, (old, new) in enumerate(pairs):
        if reached < old:
            x = x + k.torch.randn_like(x) * (old**2 - reached**2) ** 0.5
        denoised = model(x, old * ones, **extra_args)
        d = (x - denoised) / old
        if callback is not None:
            callback({"x": x, "i": i, "sigma": new, "sigma_hat": old, "denoised": denoised})
        if new > 0:  # Heun
            x_2 = x + d * (new - old)
            d = (d + (x_2 - model(x_2, new * ones, **extra_args)) / new) / 2
        x = x + d * (new - old)
        reached = new
    return x


KARRAS, TWICE = {"scheduler": "karras"}, {"second_order": True}
BROWNIAN, DISCARD = {"brownian_noise": True}, {"discard_next_to_last_sigma": True}
samplers_k_diffusion = [
    ("DPM++ 2M", k.sample_dpmpp_2m, ["k_dpmpp_2m"], KARRAS),
    ("DPM++ SDE", k.sample_dpmpp_sde, ["k_dpmpp_sde"], KARRAS | TWICE | BROWNIAN),
    ("DPM++ 2M SDE", k.sample_dpmpp_2m_sde, ["k_dpmpp_2m_sde"], {"scheduler": "exponential"} | BROWNIAN),
    ("DPM++ 2S a", k.sample_dpmpp_2s_ancestral, ["k_dpmpp_2s_a"], KARRAS | TWICE),
    ("Euler a", k.sample_euler_ancestral, ["k_euler_a", "k_euler_ancestral"], {}),
    ("Euler", k.sample_euler, ["k_euler"], {}),
    ("LMS", k.sample_lms, ["k_lms"], {}),
    ("Heun", k.sample_heun, ["k_heun"], TWICE),
    ("DPM2", k.sample_dpm_2, ["k_dpm_2"], KARRAS | DISCARD | TWICE),
    ("DPM2 a", k.sample_dpm_2_ancestral, ["k_dpm_2_a"], KARRAS | DISCARD | TWICE),
    ("DPM fast", k.sample_dpm_fast, ["k_dpm_fast"], {}),
    ("DPM adaptive", k.sample_dpm_adaptive, ["k_dpm_ad"], {}),
    ("Restart", restart_sampler, ["restart"], KARRAS | TWICE),
]
samplers_data_k_diffusion = [
    sd_samplers_common.SamplerData(label, lambda model, f=f: KDiffusionSampler(f, model), aliases, options)
    for label, f, aliases, options in samplers_k_diffusion
]


class CFGDenoiserKDiffusion(CFGDenoiser):
    def wrap(self):
        return k_diffusion.external.CompVisDenoiser(shared.sd_model)


class KDiffusionSampler(sd_samplers_common.Sampler):
    denoiser = CFGDenoiserKDiffusion

    def get_sigmas(self, p, steps: int) -> torch.Tensor:
        """The whole schedule of `steps` steps, `[steps + 1]`; notes its type in the job's infotext."""
        options = self.config.options
        discard = options.get("discard_next_to_last_sigma", False)
        steps += int(discard)
        name = (p.hr_scheduler if p.is_hr_pass else p.scheduler) or "Automatic"
        scheduler = sd_schedulers.schedulers_map.get(options.get("scheduler") if name == "Automatic" else name)
        if scheduler is None:
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

    def begin(self, p, x, steps: int):
        sigmas, known = self.get_sigmas(p, steps), self.model_wrap.sigmas
        given = {"sigmas": sigmas, "n": steps, "sigma_max": known[-1].item(), "sigma_min": known[0].item()}
        return x * sigmas[0], self._with_noise(p, x, sigmas, given)

    def begin_over(self, p, x, noise, steps: int, t_enc: int):
        sigmas = self.get_sigmas(p, steps)
        kept = sigmas[steps - t_enc - 1 :]
        given = {"sigmas": kept, "n": len(kept) - 1, "sigma_max": kept[0], "sigma_min": kept[-2]}
        return x + noise * kept[0], self._with_noise(p, x, sigmas, given)

    def _with_noise(self, p, x, sigmas, given: dict) -> dict:
        """What samplers are given beside the schedule, for the noise that some add."""
        given["eta"] = 1.0  # the host's; k-diffusion's own is another one for some
        given |= {"s_churn": p.s_churn, "s_tmin": p.s_tmin, "s_tmax": p.s_tmax or float("inf")}
        if self.config.options.get("brownian_noise", False):
            seeds = p.all_seeds[p.iteration * p.batch_size : (p.iteration + 1) * p.batch_size]
            ends = sigmas[sigmas > 0].min(), sigmas.max()
            given["noise_sampler"] = k.BrownianTreeNoiseSampler(x, *ends, seed=seeds)
        return given
