"""Restart sampling (Xu et al. 2023, algorithm 1) on Heun steps: the noise level rises again once or twice."""

from __future__ import annotations

import k_diffusion.sampling
import torch


@torch.no_grad()
def restart_sampler(model, x, sigmas, extra_args=None, callback=None, disable=None, s_noise=1.0, restart_list=None):
    """`restart_list`: {sigma to restart at: (steps of the restart, times, sigma to rise to)}; none below 20 steps."""
    extra_args, ones, karras = extra_args or {}, x.new_ones([x.shape[0]]), k_diffusion.sampling.get_sigmas_karras
    steps = len(sigmas) - 1
    if restart_list is None:
        restart_list = {}
        if steps >= 20:
            length, times = (steps // 4, 2) if steps >= 36 else (9, 1)
            sigmas = karras(steps - length * times, sigmas[-2].item(), sigmas[0].item(), device=x.device)
            restart_list = {0.1: (length + 1, times, 2)}

    def nearest(value: float) -> int:
        return int((sigmas - value).abs().argmin())

    restarts = {nearest(sigma): spec for sigma, spec in restart_list.items()}
    pairs = []
    for i in range(len(sigmas) - 1):
        pairs.append((sigmas[i], sigmas[i + 1]))
        if i + 1 in restarts:
            length, times, top = restarts[i + 1]
            if nearest(top) < i + 1:
                again = karras(length, sigmas[i + 1].item(), sigmas[nearest(top)].item(), device=x.device)[:-1]
                pairs += list(zip(again[:-1], again[1:])) * times

    reached = pairs[0][0]
    for i, (old, new) in enumerate(pairs):
        if reached < old:
            x = x + k_diffusion.sampling.torch.randn_like(x) * s_noise * (old**2 - reached**2) ** 0.5
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
