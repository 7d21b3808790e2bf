"""Samples one picture at twice the native size, directly and with HiDiffusion, and writes both.

The network is a small ldm UNet with Stable Diffusion 1's structure and random weights: the pictures are noise, the
work, the times and what is active at which step are real.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn
from tqdm import tqdm

from fused_attention import use_fused_attention
from hidiffusion_ext.core import Options, Run, Schedule, hidiffusion, make_plan, map_unet
from picture_grid import save_grid

NATIVE = 256
CONTEXT = 64


def random_unet(seed: int) -> UNetModel:
    """A UNet with SD1's structure, a quarter of its width and outputs of order 1."""
    torch.manual_seed(seed)
    unet = UNetModel(
        image_size=64,
        in_channels=4,
        out_channels=4,
        model_channels=64,
        num_res_blocks=2,
        channel_mult=(1, 2, 4, 4),
        attention_resolutions=(1, 2, 4),
        num_heads=8,
        use_spatial_transformer=True,
        context_dim=CONTEXT,
        legacy=False,
    )
    for parameter in unet.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    use_fused_attention(unet)
    return unet.eval().requires_grad_(False)


def ddim_schedule(steps: int) -> list[float]:
    return [float(t) for t in torch.linspace(999, 0, steps + 1)[:-1]]


def sample(unet: UNetModel, latent: tuple[int, int], timesteps: list[float], seed: int, label: str) -> torch.Tensor:
    """DDIM (arXiv 2010.02502, equation 12, eta 0) with SD1's noise schedule; returns [1, 4, H, W]."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, *latent, generator=generator)
    context = torch.randn(1, 8, CONTEXT, generator=generator)
    for index, t in enumerate(tqdm(timesteps, desc=label, unit="step", file=sys.stdout)):
        noise = unet(x, torch.tensor([t]), context=context)
        alpha = alphas[int(t)]
        previous = alphas[int(timesteps[index + 1])] if index + 1 < len(timesteps) else torch.tensor(1.0)
        x = previous.sqrt() * (x - (1 - alpha).sqrt() * noise) / alpha.sqrt() + (1 - previous).sqrt() * noise
    return x


def as_picture(x: torch.Tensor) -> torch.Tensor:
    """The first three latent channels as a picture of 8 pixels per cell: [1, 4, h, w] -> [1, 3, 8h, 8w], 0 to 1."""
    picture = x[:, :3] - x[:, :3].mean((2, 3), keepdim=True)
    picture = (0.5 + 0.19 * picture / picture.std()).clamp(0, 1)
    return nn.functional.interpolate(picture, scale_factor=8, mode="bicubic").clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python run.py demo", description=__doc__)
    parser.add_argument("--size", type=int, default=2 * NATIVE, help="side of the picture in pixels")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the pictures")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    unet = random_unet(arguments.seed)
    latent = (arguments.size // 8, arguments.size // 8)
    plan = make_plan(Options(native_size=NATIVE), map_unet(unet), latent)
    timesteps = ddim_schedule(arguments.steps)
    contexts = {"direct": nullcontext(), "HiDiffusion": hidiffusion(unet, plan, Run(Schedule(timesteps)))}
    report: dict[str, object] = {"size": arguments.size, "active": plan.describe(arguments.steps)}
    seconds: dict[str, float] = {}
    rows: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for name, context in contexts.items():
            with context:
                started = time.perf_counter()
                x = sample(unet, latent, timesteps, arguments.seed, f"{name:>11}")
                seconds[name] = time.perf_counter() - started
            rows[f"{name}, {seconds[name]:.1f} s"] = as_picture(x)
    save_grid(arguments.out / "demo.png", rows, columns=[f"{arguments.size}x{arguments.size}"])
    report["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
    report["speedup"] = round(seconds["direct"] / seconds["HiDiffusion"], 2)
    (arguments.out / "demo.json").write_text(json.dumps(report, indent=2))
    print(f"\nActive: {report['active']}")
    print(f"Direct {seconds['direct']:.1f} s, HiDiffusion {seconds['HiDiffusion']:.1f} s: {report['speedup']}x")
    print(f"Pictures: {(arguments.out / 'demo.png').resolve()}")


if __name__ == "__main__":
    main()
