"""Noise schedules: n decreasing sigmas and a final 0."""

from __future__ import annotations

from collections import namedtuple

import k_diffusion.sampling
import numpy as np
import torch
from scipy import stats

Scheduler = namedtuple("Scheduler", ["name", "label", "function", "need_inner_model", "aliases"], defaults=(False, ()))


def _even(n, sigma_min, sigma_max, inner_model) -> list[float]:
    """Sigmas at timesteps that are evenly spaced, both ends among them."""
    first, last = (inner_model.sigma_to_t(torch.tensor(sigma)) for sigma in (sigma_max, sigma_min))
    return [float(inner_model.t_to_sigma(t)) for t in torch.linspace(first, last, n)]


def uniform(n, sigma_min, sigma_max, inner_model, device):
    return inner_model.get_sigmas(n)


def sgm_uniform(n, sigma_min, sigma_max, inner_model, device):
    return torch.tensor([*_even(n + 1, sigma_min, sigma_max, inner_model)[:-1], 0.0])


def normal(n, sigma_min, sigma_max, inner_model, device):
    return torch.tensor([*_even(n, sigma_min, sigma_max, inner_model), 0.0])


def simple(n, sigma_min, sigma_max, inner_model, device):
    s = inner_model.sigmas
    return torch.tensor([float(s[-1 - int(i * len(s) / n)]) for i in range(n)] + [0.0])


def ddim(n, sigma_min, sigma_max, inner_model, device):
    s = inner_model.sigmas
    return torch.tensor([float(v) for v in s[1 :: max(len(s) // n, 1)].flip(0)] + [0.0])


def kl_optimal(n, sigma_min, sigma_max, device):
    ramp = torch.arange(n + 1) / n
    low, high = torch.tensor(sigma_min).arctan(), torch.tensor(sigma_max).arctan()
    return torch.tan(ramp * low + (1 - ramp) * high)


ALIGN_YOUR_STEPS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
"""Optimised sigmas for SD1.5 (Sabour et al. 2024, "Align Your Steps")."""


def align_your_steps(n, sigma_min, sigma_max, device):
    """The optimised sigmas, interpolated in their logarithm."""
    at = np.linspace(0, len(ALIGN_YOUR_STEPS) - 1, n)
    between = np.exp(np.interp(at, range(len(ALIGN_YOUR_STEPS)), np.log(ALIGN_YOUR_STEPS)))
    return torch.FloatTensor([*between, 0.0])


def beta(n, sigma_min, sigma_max, inner_model, device):
    """As on the host, the quantiles are taken in sigma, not in time; 0.6 is its default for both."""
    quantiles = [stats.beta.ppf(1 - q, 0.6, 0.6) for q in torch.linspace(0, 1, n, dtype=torch.float64).tolist()]
    return torch.FloatTensor([sigma_min + q * (sigma_max - sigma_min) for q in quantiles] + [0.0])


schedulers = [
    Scheduler("automatic", "Automatic", None),
    Scheduler("uniform", "Uniform", uniform, need_inner_model=True),
    Scheduler("karras", "Karras", k_diffusion.sampling.get_sigmas_karras),
    Scheduler("exponential", "Exponential", k_diffusion.sampling.get_sigmas_exponential),
    Scheduler("polyexponential", "Polyexponential", k_diffusion.sampling.get_sigmas_polyexponential),
    Scheduler("sgm_uniform", "SGM Uniform", sgm_uniform, need_inner_model=True, aliases=["SGMUniform"]),
    Scheduler("kl_optimal", "KL Optimal", kl_optimal),
    Scheduler("align_your_steps", "Align Your Steps", align_your_steps),
    Scheduler("simple", "Simple", simple, need_inner_model=True),
    Scheduler("normal", "Normal", normal, need_inner_model=True),
    Scheduler("ddim", "DDIM", ddim, need_inner_model=True),
    Scheduler("beta", "Beta", beta, need_inner_model=True),
]
schedulers_map = {key: s for s in schedulers for key in (s.name, s.label)}
