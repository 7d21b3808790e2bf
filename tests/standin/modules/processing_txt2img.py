"""txt2img, with its optional second (hires) pass. Import it from `processing`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from modules import images, rng, sd_models, sd_samplers, shared
from modules.processing_job import (
    DecodedSamples,
    StableDiffusionProcessing,
    decode_latent_batch,
    no_image_conditioning,
    opt_f,
)
from modules.sd_samplers_common import images_tensor_to_samples
from modules.shared import state


def _unless_same(own: str, first: str) -> Callable:
    """An entry of the infotext: a prompt of the hires pass where it is another one than the first pass's."""

    def entry(p, index, **texts):
        prompt = getattr(p, own)[index]
        return None if prompt == texts[first] else prompt

    return entry


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    denoising_strength: float = 0.75
    enable_hr: bool = False
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    hr_scale: float = 2.0
    hr_upscaler: str = None
    hr_sampler_name: str = None
    hr_scheduler: str = None
    hr_second_pass_steps: int = 0
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_checkpoint_name: str = None

    def __post_init__(self):
        super().__post_init__()
        self.hr_upscale_to_x = self.hr_upscale_to_y = self.truncate_x = self.truncate_y = 0
        self.hr_checkpoint_info = self.latent_scale_mode = self.hr_c = self.hr_uc = None

    def calculate_target_resolution(self) -> None:
        """hr_upscale_to_x/y and what is cut off afterwards, from hr_scale or hr_resize_x/y."""
        x, y = self.hr_resize_x, self.hr_resize_y
        if x == 0 and y == 0:
            self.extra_generation_params["Hires upscale"] = self.hr_scale
            self.hr_upscale_to_x, self.hr_upscale_to_y = (
                int(self.width * self.hr_scale),
                int(self.height * self.hr_scale),
            )
            return
        self.extra_generation_params["Hires resize"] = f"{x}x{y}"
        if y == 0 or (x != 0 and self.width / self.height < x / y):  # the width decides
            self.hr_upscale_to_x, self.hr_upscale_to_y = x, x * self.height // self.width
        else:
            self.hr_upscale_to_x, self.hr_upscale_to_y = y * self.width // self.height, y
        if x and y:
            self.truncate_x, self.truncate_y = (self.hr_upscale_to_x - x) // opt_f, (self.hr_upscale_to_y - y) // opt_f

    def init(self, all_prompts, all_seeds, all_subseeds):
        if not self.enable_hr:
            return
        extra = self.extra_generation_params
        extra["Denoising strength"] = self.denoising_strength
        if self.hr_checkpoint_name and self.hr_checkpoint_name != "Use same checkpoint":
            self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)
            if self.hr_checkpoint_info is None:
                raise Exception(f"no checkpoint {self.hr_checkpoint_name!r}")
            extra["Hires checkpoint"] = self.hr_checkpoint_info.short_title
        if self.hr_sampler_name not in (None, self.sampler_name):
            extra["Hires sampler"] = self.hr_sampler_name
        extra["Hires prompt"] = _unless_same("all_hr_prompts", "prompt_text")
        extra["Hires negative prompt"] = _unless_same("all_hr_negative_prompts", "negative_prompt")
        extra["Hires schedule type"] = None  # the sampler may fill it in
        self.hr_scheduler = self.hr_scheduler or self.scheduler
        mode = shared.latent_upscale_default_mode if self.hr_upscaler is None else self.hr_upscaler
        self.latent_scale_mode = shared.latent_upscale_modes.get(mode)
        if self.latent_scale_mode is None and not any(u.name == self.hr_upscaler for u in shared.sd_upscalers):
            raise Exception(f"no upscaler {self.hr_upscaler!r}")
        self.calculate_target_resolution()
        if not state.processing_has_refined_job_count:
            state.job_count = (self.n_iter if state.job_count == -1 else state.job_count) * 2
            state.processing_has_refined_job_count = True
        if self.hr_second_pass_steps:
            extra["Hires steps"] = self.hr_second_pass_steps
        if self.hr_upscaler is not None:
            extra["Hires upscaler"] = self.hr_upscaler

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        if self.firstpass_image is not None and self.enable_hr:  # the UI's "upscale" button: second pass only
            pixels = images.to_tensor([self.firstpass_image])
            latents, decoded = (
                (images_tensor_to_samples(pixels), None) if self.latent_scale_mode else (None, pixels * 2 - 1)
            )
        else:
            x, conds = self.rng.next(), (conditioning, unconditional_conditioning)
            if self.scripts is not None:
                self.scripts.process_before_every_sampling(self, x=x, noise=x, c=conds[0], uc=conds[1])
            latents = self.sampler.sample(self, x, *conds, image_conditioning=no_image_conditioning(x))
            if not self.enable_hr:
                return latents
            decoded = None if self.latent_scale_mode else torch.stack(decode_latent_batch(self.sd_model, latents))
        with sd_models.SkipWritingToConfig():
            sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return self.sample_hr_pass(latents, decoded, seeds, subseeds, subseed_strength, prompts)

    def sample_hr_pass(self, samples, decoded_samples, seeds, subseeds, subseed_strength, prompts) -> DecodedSamples:
        if state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        w, h = self.hr_upscale_to_x, self.hr_upscale_to_y
        if self.latent_scale_mode is not None:
            samples = torch.nn.functional.interpolate(samples, size=(h // opt_f, w // opt_f), **self.latent_scale_mode)
        else:
            larger = [
                images.resize_image(images.to_image(x), w, h, upscaler_name=self.hr_upscaler) for x in decoded_samples
            ]
            samples = images_tensor_to_samples(images.to_tensor(larger))
        state.nextjob()
        cut_x, cut_y = self.truncate_x, self.truncate_y
        samples = samples[
            :, :, cut_y // 2 : samples.shape[2] - (cut_y + 1) // 2, cut_x // 2 : samples.shape[3] - (cut_x + 1) // 2
        ]
        self.rng = rng.ImageRNG(
            samples.shape[1:], self.seeds, subseeds=self.subseeds, subseed_strength=self.subseed_strength
        )
        noise = self.rng.next()
        self.activate_extra_networks()
        self.calculate_hr_conds()
        if self.scripts is not None:
            self.scripts.before_hr(self)
            self.scripts.process_before_every_sampling(self, x=samples, noise=noise, c=self.hr_c, uc=self.hr_uc)
        samples = self.sampler.sample_img2img(
            self,
            samples,
            noise,
            self.hr_c,
            self.hr_uc,
            steps=self.hr_second_pass_steps or self.steps,
            image_conditioning=no_image_conditioning(samples),
        )
        self.sampler = None
        decoded = decode_latent_batch(self.sd_model, samples)
        self.is_hr_pass = False
        return decoded

    def close(self):
        super().close()
        self.hr_c = self.hr_uc = None

    def setup_prompts(self):
        super().setup_prompts()
        if self.enable_hr:
            self.hr_prompt = self.hr_prompt or self.prompt
            self.hr_negative_prompt = self.hr_negative_prompt or self.negative_prompt
            self.all_hr_prompts = self._one_per_image(self.hr_prompt)
            self.all_hr_negative_prompts = self._one_per_image(self.hr_negative_prompt)

    def calculate_hr_conds(self):
        if self.hr_c is None:
            self.hr_c, self.hr_uc = self._conds(
                self.hr_prompts,
                self.hr_negative_prompts,
                self.hr_upscale_to_x,
                self.hr_upscale_to_y,
                self.hr_sampler_name or self.sampler_name,
                self.hr_second_pass_steps or self.steps,
            )

    def setup_conds(self):
        if self.is_hr_pass:  # asked for by the refiner
            self.hr_c = None
            self.calculate_hr_conds()
            return
        super().setup_conds()
        self.hr_c = self.hr_uc = None

    def get_conds(self):
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()

    def parse_extra_network_prompts(self):
        super().parse_extra_network_prompts()
        if self.enable_hr:
            of_batch = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
            self.hr_prompts, self.hr_negative_prompts = (
                self.all_hr_prompts[of_batch],
                self.all_hr_negative_prompts[of_batch],
            )
