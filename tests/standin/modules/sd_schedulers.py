"""Noise schedules: n decreasing sigmas and a final 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import k_diffusion.sampling
import torch
from scipy import stats


@dataclass
class Scheduler:
    name: str
    label: str
    function: Callable[..., torch.Tensor] | None
    need_inner_model: bool = False
    aliases: list[str] = field(default_factory=list)


def _of_timesteps(inner_model, timesteps) -> torch.Tensor:
    return torch.tensor([float(inner_model.t_to_sigma(t)) for t in timesteps] + [0.0])


def _ends(inner_model, sigma_min, sigma_max):
    return inner_model.sigma_to_t(torch.tensor(sigma_max)), inner_model.sigma_to_t(torch.tensor(sigma_min))


def uniform(n, sigma_min, sigma_max, inner_model, device):
    return inner_model.get_sigmas(n)


def sgm_uniform(n, sigma_min, sigma_max, inner_model, device):
    return _of_timesteps(inner_model, torch.linspace(*_ends(inner_model, sigma_min, sigma_max), n + 1)[:-1])


def normal(n, sigma_min, sigma_max, inner_model, device):
    return _of_timesteps(inner_model, torch.linspace(*_ends(inner_model, sigma_min, sigma_max), n))


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
    """The optimised sigmas, interpolated in their logarithm; the host keeps them as they are for their own number."""
    table = torch.tensor(ALIGN_YOUR_STEPS)
    if n != len(table):
        at = torch.linspace(0, len(table) - 1, n)
        low = at.floor().long().clamp(max=len(table) - 2)
        table = torch.lerp(table.log()[low], table.log()[low + 1], at - low).exp()
    return torch.cat([table, torch.zeros(1)])


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
