"""img2img and inpainting. Import it from `processing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modules import images, rng, sd_samplers
from modules.processing_job import StableDiffusionProcessing, no_image_conditioning
from modules.sd_samplers_common import blended, images_tensor_to_samples


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """img2img and inpainting; a mask always covers the whole picture (no "only masked", no blur, no overlay)."""

    denoising_strength: float = 0.75
    init_images: list = None
    image_cfg_scale: float = None
    mask: Any = None  # the picture asked for; in latent cells, 1 where nothing is painted, once the job runs
    inpainting_mask_invert: int = 0
    inpainting_fill: int = 0

    def __post_init__(self):
        super().__post_init__()
        self.image_mask, self.mask = self.mask, None
        self.nmask = self.init_latent = self.image_conditioning = None

    def init(self, all_prompts, all_seeds, all_subseeds):
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        pictures = [images.resize_image(images.flatten(im), self.width, self.height) for im in self.init_images]
        if len(pictures) == 1:
            pictures = pictures * self.batch_size
        elif len(pictures) > self.batch_size:
            raise RuntimeError(f"{len(pictures)} images for a batch of {self.batch_size}")
        self.batch_size = len(pictures)
        pixels = images.to_tensor(pictures)
        self.init_latent = images_tensor_to_samples(pixels)
        if self.image_mask is not None:
            size = self.init_latent.shape[3], self.init_latent.shape[2]
            painted = torch.from_numpy(np.asarray(self.image_mask.convert("L").resize(size), np.float32) / 255).round()
            painted = 1 - painted if self.inpainting_mask_invert else painted
            self.nmask = painted.expand(self.init_latent.shape[1:])
            self.mask = 1 - self.nmask
            if self.inpainting_fill == 2:
                noise = rng.ImageRNG(self.init_latent.shape[1:], all_seeds[: len(self.init_latent)]).next()
                self.init_latent = self.init_latent * self.mask + noise * self.nmask
            elif self.inpainting_fill == 3:
                self.init_latent = self.init_latent * self.mask
        self.image_conditioning = no_image_conditioning(self.init_latent)

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        noise, conds = self.rng.next(), (conditioning, unconditional_conditioning)
        if self.scripts is not None:
            self.scripts.process_before_every_sampling(self, x=self.init_latent, noise=noise, c=conds[0], uc=conds[1])
        samples = self.sampler.sample_img2img(
            self, self.init_latent, noise, *conds, image_conditioning=self.image_conditioning
        )
        return samples if self.mask is None else blended(self, samples, self.init_latent, self.mask, self.nmask)
