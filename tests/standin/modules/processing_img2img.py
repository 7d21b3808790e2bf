"""img2img and inpainting. Import it from `processing`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from modules import images, rng, scripts, sd_samplers
from modules.processing_job import StableDiffusionProcessing
from modules.sd_samplers_common import images_tensor_to_samples
from modules.shared import opts


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """img2img and inpainting; a mask always covers the whole picture (no "only masked", no blur, no overlay)."""

    init_images: list = None
    resize_mode: int = 0
    denoising_strength: float = 0.75
    image_cfg_scale: float = None
    mask: Any = None
    mask_blur_x: int = 4
    mask_blur_y: int = 4
    mask_blur: int = None
    mask_round: bool = True
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = 0
    inpainting_mask_invert: int = 0
    initial_noise_multiplier: float = None
    latent_mask: Image = None
    force_task_id: str = None

    image_mask: Any = field(default=None, init=False)
    nmask: torch.Tensor = field(default=None, init=False)
    image_conditioning: torch.Tensor = field(default=None, init=False)
    init_img_hash: str = field(default=None, init=False)
    mask_for_overlay: Image = field(default=None, init=False)
    init_latent: torch.Tensor = field(default=None, init=False)

    def __post_init__(self):
        super().__post_init__()
        self.image_mask, self.mask = self.mask, None
        if self.initial_noise_multiplier is None:
            self.initial_noise_multiplier = opts.initial_noise_multiplier

    def init(self, all_prompts, all_seeds, all_subseeds):
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        pictures = [
            images.resize_image(self.resize_mode, images.flatten(im), self.width, self.height)
            for im in self.init_images
        ]
        if len(pictures) == 1:
            pictures = pictures * self.batch_size
        elif len(pictures) > self.batch_size:
            raise RuntimeError(f"{len(pictures)} images for a batch of {self.batch_size}")
        self.batch_size = len(pictures)
        pixels = images.to_tensor(pictures)
        self.init_latent = images_tensor_to_samples(pixels)
        if self.image_mask is not None:
            size = self.init_latent.shape[3], self.init_latent.shape[2]
            painted = torch.from_numpy(np.asarray(self.image_mask.convert("L").resize(size), np.float32) / 255)
            painted = painted.round() if self.mask_round else painted
            painted = 1 - painted if self.inpainting_mask_invert else painted
            self.nmask = painted.expand(self.init_latent.shape[1:])
            self.mask = 1 - self.nmask
            if self.inpainting_fill == 2:
                noise = rng.ImageRNG(self.init_latent.shape[1:], all_seeds[: len(self.init_latent)]).next()
                self.init_latent = self.init_latent * self.mask + noise * self.nmask
            elif self.inpainting_fill == 3:
                self.init_latent = self.init_latent * self.mask
        self.image_conditioning = self.img2img_image_conditioning(pixels * 2 - 1, self.init_latent)

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        x = self.rng.next()
        if self.initial_noise_multiplier != 1.0:
            self.extra_generation_params["Noise multiplier"] = self.initial_noise_multiplier
            x *= self.initial_noise_multiplier
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(
                p=self, x=self.init_latent, noise=x, c=conditioning, uc=unconditional_conditioning
            )
        samples = self.sampler.sample_img2img(
            self,
            self.init_latent,
            x,
            conditioning,
            unconditional_conditioning,
            image_conditioning=self.image_conditioning,
        )
        if self.mask is not None:
            blended = samples * self.nmask + self.init_latent * self.mask
            args = scripts.MaskBlendArgs(samples, self.nmask, self.init_latent, self.mask, blended)
            if self.scripts is not None:
                self.scripts.on_mask_blend(self, args)
            samples = args.blended_latent
        return samples
