"""DDIM: works in timesteps instead of sigmas."""

from __future__ import annotations

import k_diffusion.sampling
import torch

from modules import sd_samplers_common, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser


@torch.no_grad()
def ddim(model, x, timesteps, extra_args=None, callback=None, disable=None, eta=0.0):
    """Song et al. 2021, eq. 12; `timesteps` rise, the last one is where `x` is."""
    table = model.inner_model.inner_model.alphas_cumprod.double()
    extra_args = extra_args or {}
    for i, index in enumerate(range(len(timesteps) - 1, 0, -1)):
        t, before = int(timesteps[index]), int(timesteps[index - 1])
        a, a_prev = table[t].item(), table[before].item()
        eps = model(x, t * x.new_ones(x.shape[0]), **extra_args)
        sigma = eta * ((1 - a_prev) / (1 - a) * (1 - a / a_prev)) ** 0.5
        x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
        noise = k_diffusion.sampling.torch.randn_like(x)
        x = a_prev**0.5 * x0 + (1 - a_prev - sigma**2) ** 0.5 * eps + sigma * noise
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
        out = self.inner_model.apply_model(input, timesteps, **kwargs)
        if self.inner_model.parameterization == "v":
            a = self.inner_model.alphas_cumprod[timesteps.int()][:, None, None, None]
            out = a.sqrt() * out + (1 - a).sqrt() * input
        return out


class CFGDenoiserTimesteps(CFGDenoiser):
    mask_before_denoising = True

    def get_pred_x0(self, x_in, x_out, sigma):
        a = shared.sd_model.alphas_cumprod[sigma.int()][:, None, None, None]
        return (x_in - (1 - a).sqrt() * x_out) / a.sqrt()

    def wrap(self):
        return CompVisTimestepsDenoiser(shared.sd_model)


class CompVisSampler(sd_samplers_common.Sampler):
    def __init__(self, function, sd_model):
        super().__init__(function)
        self.model_wrap_cfg = CFGDenoiserTimesteps(self)
        self.model_wrap = self.model_wrap_cfg.inner_model

    def get_timesteps(self, p, steps: int) -> torch.Tensor:
        """Rising timesteps 1, 1 + 1000 // steps, ..."""
        return (torch.arange(0, 1000, 1000 // steps) + 1).clip(0, 999)

    def sample_img2img(
        self, p, x, noise, conditioning, unconditional_conditioning, steps=None, image_conditioning=None
    ):
        steps, t_enc = sd_samplers_common.setup_img2img_steps(p, steps)
        timesteps = self.get_timesteps(p, steps)
        a = shared.sd_model.alphas_cumprod[timesteps[t_enc]]
        start = x * a.sqrt() + noise * (1 - a).sqrt()
        self.model_wrap_cfg.init_latent = x
        self.initialize(p)
        conds = conditioning, unconditional_conditioning, image_conditioning
        return self.run(p, start, x, t_enc + 1, *conds, {"timesteps": timesteps[:t_enc]})

    def sample(self, p, x, conditioning, unconditional_conditioning, steps=None, image_conditioning=None):
        steps = steps or p.steps
        timesteps = self.get_timesteps(p, steps)
        self.initialize(p)
        conds = conditioning, unconditional_conditioning, image_conditioning
        return self.run(p, x, x, steps, *conds, {"timesteps": timesteps})
