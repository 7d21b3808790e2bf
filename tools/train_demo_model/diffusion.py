"""The diffusion process of Stable Diffusion 1: its noise schedule, the training loss and a DDIM sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch

TIMESTEPS = 1000
LINEAR_START, LINEAR_END = 0.00085, 0.012
MAX_SNR_WEIGHT = 10.0  # gamma of min-SNR weighting, Hang et al. 2023 (arXiv 2303.09556), section 3.4

Denoiser = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""`(x [B, 4, h, w], timesteps [B], context [B, 77, width]) -> predicted v [B, 4, h, w]`

v = sqrt(alpha) noise - sqrt(1 - alpha) picture (Salimans and Ho 2022, arXiv 2202.00512, section 4 and appendix D).
"""


def betas() -> torch.Tensor:
    """Noise added per timestep, `[1000]` float64: linear in the square root ("scaled linear")."""
    return torch.linspace(LINEAR_START**0.5, LINEAR_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2


def alphas_cumprod() -> torch.Tensor:
    """Share of the signal's variance left at each timestep, `[1000]` float64."""
    return torch.cumprod(1 - betas(), dim=0)


def draw_timesteps(count: int, below: int, device: torch.device) -> torch.Tensor:
    """One uniform timestep from each of `count` equal strata: the loss of a batch varies less than with free draws."""
    strata = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    return (strata * below).long()[torch.randperm(count, device=device)]


def v_loss(
    denoiser: Denoiser,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    context: torch.Tensor,
    alphas: torch.Tensor,
) -> torch.Tensor:
    """Squared errors `[B]` of the predicted v for a batch `[B, 4, h, w]` at timesteps `[B]`, weighted by noise level.

    The error of v is that of the picture times SNR + 1: where nearly all is noise and the caption settles what is
    where, the picture counts in full. (min(SNR, gamma) + 1) / (SNR + 1) takes weight from the last touches.
    """
    alpha = alphas[timesteps].to(latents.dtype)[:, None, None, None]
    noise = torch.randn_like(latents)
    predicted = denoiser(alpha.sqrt() * latents + (1 - alpha).sqrt() * noise, timesteps, context)
    v = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    snr = (alpha / (1 - alpha)).flatten()
    weight = (snr.clamp(max=MAX_SNR_WEIGHT) + 1) / (snr + 1)
    return weight * (predicted.float() - v).square().mean(dim=(1, 2, 3))


@torch.no_grad()
def sample_ddim(
    denoiser: Denoiser,
    noise: torch.Tensor,
    context: torch.Tensor,
    empty_context: torch.Tensor,
    steps: int,
    guidance: float,
) -> torch.Tensor:
    """Deterministic DDIM (Song et al. 2021, eq. 12 with sigma 0) with classifier-free guidance.

    Args:
        denoiser: predicts v.
        noise: start `[B, 4, h, w]`, standard normal.
        context: `[B, 77, width]` of the captions.
        empty_context: `[B, 77, width]` of empty captions.
        steps: number of UNet evaluations (each at twice the batch).
        guidance: 1 follows the caption as trained, more exaggerates it.

    Returns:
        Scaled latents `[B, 4, h, w]`.
    """
    alphas = alphas_cumprod().to(noise.device)
    schedule = torch.linspace(TIMESTEPS - 1, 0, steps + 1, device=noise.device).round().long()
    both_contexts = torch.cat((empty_context, context))
    x = noise
    for now, later in zip(schedule[:-1], schedule[1:], strict=True):
        timesteps = now.expand(2 * len(x))
        without, with_caption = denoiser(torch.cat((x, x)), timesteps, both_contexts).float().chunk(2)
        v = without + guidance * (with_caption - without)
        alpha, alpha_later = alphas[now].float(), alphas[later].float()
        clean, predicted = alpha.sqrt() * x - (1 - alpha).sqrt() * v, alpha.sqrt() * v + (1 - alpha).sqrt() * x
        x = alpha_later.sqrt() * clean + (1 - alpha_later).sqrt() * predicted
    return x
