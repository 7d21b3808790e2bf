"""DDIM: works in timesteps instead of sigmas."""

from __future__ import annotations

import torch

from modules import sd_samplers_common, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser


@torch.no_grad()
def ddim(model, x, timesteps, extra_args=None, callback=None, disable=None):
    """Song et al. 2021, eq. 12 without noise; `timesteps` rise, the last one is where `x` is."""
    table = model.inner_model.inner_model.alphas_cumprod.double()
    extra_args = extra_args or {}
    for i, index in enumerate(range(len(timesteps) - 1, 0, -1)):
        t, before = int(timesteps[index]), int(timesteps[index - 1])
        a, a_prev = table[t].item(), table[before].item()
        eps = model(x, t * x.new_ones(x.shape[0]), **extra_args)
        x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
        x = a_prev**0.5 * x0 + (1 - a_prev) ** 0.5 * eps
        if callback is not None:
            callback({"x": x, "i": i, "sigma": 0, "sigma_hat": 0, "denoised": x0})
    return x


samplers_data_timesteps = [
    sd_samplers_common.SamplerData("DDIM", lambda model: CompVisSampler(ddim, model), ["ddim"], {}),
]


class CompVisTimestepsDenoiser(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.inner_model = model

    def forward(self, input, timesteps, **kwargs):
        return self.inner_model.apply_model(input, timesteps, **kwargs)


class CFGDenoiserTimesteps(CFGDenoiser):
    def get_pred_x0(self, x_in, x_out, sigma):
        a = shared.sd_model.alphas_cumprod[sigma.int()][:, None, None, None]
        return (x_in - (1 - a).sqrt() * x_out) / a.sqrt()

    def wrap(self):
        return CompVisTimestepsDenoiser(shared.sd_model)


class CompVisSampler(sd_samplers_common.Sampler):
    denoiser = CFGDenoiserTimesteps

    def get_timesteps(self, p, steps: int) -> torch.Tensor:
        """Rising timesteps 1, 1 + 1000 // steps, ..."""
        return (torch.arange(0, 1000, 1000 // steps) + 1).clip(0, 999)

    def begin(self, p, x, steps: int):
        return x, {"timesteps": self.get_timesteps(p, steps)}

    def begin_over(self, p, x, noise, steps: int, t_enc: int):
        timesteps = self.get_timesteps(p, steps)
        a = shared.sd_model.alphas_cumprod[timesteps[t_enc]]
        return x * a.sqrt() + noise * (1 - a).sqrt(), {"timesteps": timesteps[:t_enc]}
