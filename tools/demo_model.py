"""The demo model as a Python object: captions in, pictures out, with or without HiDiffusion.

Loads `demo/emoji-sd.safetensors` as any Stable Diffusion 1 program would: the yaml beside it gives the dimensions, the
classes are ldm's and transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fitted_skips import fit_skips
from fused_attention import use_fused_attention
from hidiffusion_ext.core import (
    Evaluation,
    Plan,
    Run,
    Schedule,
    Situation,
    UNetMap,
    hidiffusion,
    map_unet,
)
from hidiffusion_ext.core.sizes import CELL, Size

FOLDER = Path(__file__).resolve().parent.parent / "demo"
NATIVE = 128
"""Pixels per side the model was trained at."""

SITUATION = Situation(v_prediction=True)
"""What a plan has to know of a pass of the model, beside its UNet and size."""

Progress = Callable[[Sequence[int]], Iterable[int]]


@dataclass(frozen=True)
class Patched:
    """A plan at work in a pass."""

    plan: Plan
    run: Run


Patch = Callable[[Sequence[float]], AbstractContextManager[Patched | None]]
"""Opens what is to be around a sampling pass, given its timesteps, first step first."""

Spacing = Callable[[int, float], Sequence[float]]
"""`(steps, timestep of the first) -> the timesteps of a pass`, falling, without the final zero noise."""


def evenly_spaced(steps: int, first: float) -> list[float]:
    """The model's usual spacing."""
    return [first * (1 - step / steps) for step in range(steps)]


def untouched(timesteps: Sequence[float]) -> AbstractContextManager[None]:
    """The patch that patches nothing."""
    return nullcontext()


class DemoModel:
    """The emoji model.

    Attributes:
        unet: ldm's UNet; `unet_map` are its sites.
        captions: Everything it was trained to draw.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        weights = load_file(folder / "emoji-sd.safetensors")
        config: Any = OmegaConf.to_container(OmegaConf.load(folder / "emoji-sd.yaml"))
        params = config["model"]["params"]
        autoencoder = params["first_stage_config"]["params"]
        text_folder = folder / "text_encoder"

        self.unet = UNetModel(**params["unet_config"]["params"])
        channels, embedded = autoencoder["ddconfig"]["z_channels"], autoencoder["embed_dim"]
        self.encoder = Encoder(**autoencoder["ddconfig"])
        self.quant = nn.Conv2d(2 * channels, 2 * embedded, 1)
        self.decoder = Decoder(**autoencoder["ddconfig"])
        self.post_quant = nn.Conv2d(embedded, channels, 1)
        self.text = CLIPTextModel(CLIPTextConfig.from_pretrained(text_folder))  # pyright: ignore[reportArgumentType]
        parts = {
            "model.diffusion_model.": self.unet,
            "first_stage_model.encoder.": self.encoder,
            "first_stage_model.quant_conv.": self.quant,
            "first_stage_model.decoder.": self.decoder,
            "first_stage_model.post_quant_conv.": self.post_quant,
            "cond_stage_model.transformer.": self.text,
        }
        for prefix, part in parts.items():
            own = {k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)}
            part.load_state_dict(own)
            part.eval().requires_grad_(False)
        use_fused_attention(self.unet)
        fit_skips()
        self.unet_map: UNetMap = map_unet(self.unet)
        self.alphas: torch.Tensor = weights["alphas_cumprod"].double()
        self.scale_factor: float = params["scale_factor"]
        self.tokenizer = CLIPTokenizer.from_pretrained(text_folder)
        self.captions = (folder / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1]

    def patched(self, plan: Plan, seed: int = 0) -> Patch:
        """The patch that carries out a plan; the seed is for random window shifts."""

        @contextmanager
        def patch(timesteps: Sequence[float]) -> Generator[Patched]:
            run = Run(Schedule(timesteps), torch.Generator().manual_seed(seed))
            with hidiffusion(self.unet, plan, run):
                yield Patched(plan, run)

        return patch

    @torch.inference_mode()
    def context(self, prompts: Sequence[str]) -> torch.Tensor:
        """Prompts -> text embeddings [B, 77, width]."""
        padded = {"padding": "max_length", "truncation": True, "max_length": 77}
        tokens = self.tokenizer(list(prompts), return_tensors="pt", **padded)
        return self.text(tokens.input_ids).last_hidden_state

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], size: Size = (NATIVE, NATIVE), **settings: Any
    ) -> torch.Tensor:
        """Pictures [B, 3, H, W], 0 to 1, of (height, width) pixels, multiples of 8; the settings are `draw`'s."""
        return self.decode(self.draw(prompts, seeds, (size[0] // CELL, size[1] // CELL), **settings))

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        latent: Size,
        *,
        begin: torch.Tensor | None = None,
        strength: float = 1.0,
        until: Callable[[Schedule], int] | None = None,
        patch: Patch = untouched,
        steps: int = 20,
        spacing: Spacing = evenly_spaced,
        guidance: float = 4.0,
        progress: Progress = iter,
    ) -> torch.Tensor:
        """Latents by DDIM (arXiv 2010.02502, equation 12, eta 0) with classifier-free guidance; the model predicts v.

        Args:
            prompts, seeds: One each per picture; a picture depends on its own alone.
            latent: (height, width) in latent cells.
            begin: Clean latents [B, 4, h, w] to go on from, as in img2img or a hires pass; None for pure noise.
            strength: With `begin`, the share of the training timesteps that its noise stands for. The pass then takes
                `int(strength * steps) + 1` steps, as AUTOMATIC1111's WebUI does.
            until: How many steps of the pass are made; the last one's clean estimate is the result. None: all.
            patch: What is done to the UNet.
            steps: Steps of a whole pass.
            spacing: Where its timesteps are.
            guidance: Classifier-free guidance scale.
            progress: Wraps the steps, such as `tqdm`.

        Returns:
            [B, 4, h, w], clean.
        """
        noises = [torch.randn((4, *latent), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        x = torch.stack(noises)
        if begin is not None:
            steps = int(strength * steps) + 1
        timesteps = [float(round(t)) for t in spacing(steps, 999 * strength)]
        if until:
            steps = until(Schedule(timesteps))
            timesteps = timesteps[:steps]
        if begin is not None:
            alpha = float(self.alphas[int(timesteps[0])])
            x = alpha**0.5 * begin + (1 - alpha) ** 0.5 * x
        context = torch.cat([self.context(prompts), self.context([""] * len(prompts))])

        def again(x: torch.Tensor, t: torch.Tensor, alpha: float) -> torch.Tensor:
            v = self.unet(x, t[: len(x)], context=context[len(x) :])
            return alpha**0.5 * x - (1 - alpha) ** 0.5 * v

        first = x if begin is None else begin
        with patch(timesteps) as patched:
            changes = patched.plan.changes(patched.run, first) if patched else []
            for step in progress(range(steps)):
                t = torch.full((2 * len(x),), timesteps[step])
                unguided = patched.plan.leaving_unguided(patched.run.schedule, timesteps[step]) if patched else []
                if not patched or not unguided:
                    wanted, unwanted = self.unet(torch.cat([x, x]), t, context=context).chunk(2)
                    v = unwanted + guidance * (wanted - unwanted)
                else:
                    v = unwanted = self.unet(x, t[: len(x)], context=context[: len(x)])
                    for part in unguided:
                        patched.run.did(part.name)
                alpha = float(self.alphas[int(timesteps[step])])
                previous = float(self.alphas[int(timesteps[step + 1])]) if step + 1 < steps else 1.0
                clean = alpha**0.5 * x - (1 - alpha) ** 0.5 * v
                for change in () if unguided else changes:
                    uncond = alpha**0.5 * x - (1 - alpha) ** 0.5 * unwanted
                    clean = change(Evaluation(clean, uncond, partial(again, x, t, alpha)))
                noise = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
                x = previous**0.5 * clean + (1 - previous) ** 0.5 * noise
        return x

    @torch.inference_mode()
    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures [B, 3, H, W], 0 to 1, sides multiples of 8 -> the means of their latents, as sampled."""
        means = self.quant(self.encoder(2 * pictures - 1)).float().chunk(2, dim=1)[0]
        return means * self.scale_factor

    @torch.inference_mode()
    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Latents [B, 4, h, w] as sampled -> pictures [B, 3, 8h, 8w], 0 to 1."""
        return (self.decoder(self.post_quant(x / self.scale_factor)) / 2 + 0.5).clamp(0, 1)
