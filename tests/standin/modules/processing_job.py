"""Jobs: what was asked for, what is known while they run, and how each kind samples. Import them from `processing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from modules import prompt_parser, rng, sd_models, sd_samplers, shared
from modules.shared import state

opt_C, opt_f = 4, 8  # latent channels; pixels per latent cell
NOT_YET = (
    *("sampler", "c", "uc", "rng", "scripts_value", "script_args_value"),
    *("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"),
    *("prompts", "negative_prompts", "seeds", "subseeds"),
    *("sd_model_name", "sd_model_hash", "refiner_checkpoint_info"),
)
"""What a job has from its start on, and fills in while it runs."""


@dataclass(repr=False)
class StableDiffusionProcessing:
    """What was asked for. Only the fields that a test, an extension or the page sets; requests may have others."""

    # The picture.
    width: int = 512
    height: int = 512
    prompt: str = ""
    negative_prompt: str = ""
    batch_size: int = 1
    n_iter: int = 1
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0

    # How it is sampled; None goes by the settings.
    steps: int = 50
    sampler_name: str = None
    scheduler: str = None
    cfg_scale: float = 7.0
    denoising_strength: float = 0.75
    s_min_uncond: float = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0

    # With what.
    sd_model: object = None
    refiner_checkpoint: str = None
    refiner_switch_at: float = None
    override_settings: dict[str, Any] = None

    is_hr_pass = scripts_setup_complete = False
    iteration = 0

    def __post_init__(self):
        for name in NOT_YET:
            setattr(self, name, None)
        self.comments, self.extra_generation_params = {}, {}
        self.override_settings = self.override_settings or {}

    # The loaded model, whichever that is at the moment; the field of that name only takes the constructor's argument.
    sd_model = property(lambda self: shared.sd_model, lambda self, given: None)  # noqa: PIE794

    def _set_script_args(self, given) -> None:
        """Takes them, and calls the `setup` hook as soon as they are known."""
        self.script_args_value = given
        if not self.scripts_setup_complete:
            self.scripts_setup_complete = True
            self.scripts.setup(self)

    scripts = property(lambda self: self.scripts_value, lambda self, given: setattr(self, "scripts_value", given))
    script_args = property(lambda self: self.script_args_value, _set_script_args)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def close(self):
        self.sampler = self.c = self.uc = None

    def setup_prompts(self):
        images = self.batch_size * self.n_iter
        self.all_prompts, self.all_negative_prompts = images * [self.prompt], images * [self.negative_prompt]

    def _conds(self, prompts, negative_prompts, steps: int):
        """(cond, uncond) with the model loaded now."""
        negative = prompt_parser.SdConditioning(negative_prompts, is_negative_prompt=True)
        uc = prompt_parser.get_learned_conditioning(self.sd_model, negative, steps)
        positive = prompt_parser.SdConditioning(prompts)
        return prompt_parser.get_multicond_learned_conditioning(self.sd_model, positive, steps), uc

    def setup_conds(self):
        self.c, self.uc = self._conds(self.prompts, self.negative_prompts, self.steps)

    def get_conds(self):
        return self.c, self.uc


def no_image_conditioning(latents: torch.Tensor) -> torch.Tensor:
    """What the host gives models without a picture among their inputs."""
    return latents.new_zeros(len(latents), 5, 1, 1)


def decode_latent_batch(model, batch) -> list[torch.Tensor]:
    """Each `[3, H, W]` in -1..1; on the host a list of its own kind."""
    return [model.decode_first_stage(batch[i : i + 1])[0] for i in range(len(batch))]


def to_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """`[B, 3, H, W]` in 0..1"""
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def to_image(x: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in -1..1 to a picture."""
    return Image.fromarray((255 * ((x + 1) / 2).clamp(0, 1)).permute(1, 2, 0).numpy().astype(np.uint8))


@dataclass(repr=False)
class StableDiffusionProcessingImg2Img(StableDiffusionProcessing):
    """img2img, over the whole picture."""

    init_images: list = None

    def init(self, all_prompts, all_seeds, all_subseeds):
        self.extra_generation_params["Denoising strength"] = self.denoising_strength
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        (picture,) = self.init_images
        pixels = to_tensor([picture.convert("RGB").resize((self.width, self.height), Image.LANCZOS)] * self.batch_size)
        self.init_latent = self.sd_model.encode_first_stage(pixels * 2 - 1)

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        x, noise, conds = self.init_latent, self.rng.next(), (conditioning, unconditional_conditioning)
        self.scripts.process_before_every_sampling(self, x=x, noise=noise, c=conds[0], uc=conds[1])
        return self.sampler.sample_img2img(self, x, noise, *conds, image_conditioning=no_image_conditioning(x))


def _other_prompt(p, index, prompt_text, **texts) -> str | None:
    """An entry of the infotext: a prompt of the hires pass where it is another one than the first pass's."""
    return None if p.all_hr_prompts[index] == prompt_text else p.all_hr_prompts[index]


def _other_negative_prompt(p, index, negative_prompt, **texts) -> str | None:
    return None if p.all_hr_negative_prompts[index] == negative_prompt else p.all_hr_negative_prompts[index]


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    """txt2img, with its optional second (hires) pass."""

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
        x, y, width, height = self.hr_resize_x, self.hr_resize_y, self.width, self.height
        if x == 0 and y == 0:
            self.extra_generation_params["Hires upscale"] = self.hr_scale
            self.hr_upscale_to_x, self.hr_upscale_to_y = int(width * self.hr_scale), int(height * self.hr_scale)
            return
        self.extra_generation_params["Hires resize"] = f"{x}x{y}"
        if y == 0 or (x != 0 and width / height < x / y):  # the width decides
            self.hr_upscale_to_x, self.hr_upscale_to_y = x, x * height // width
        else:
            self.hr_upscale_to_x, self.hr_upscale_to_y = y * width // height, y
        if x and y:
            self.truncate_x, self.truncate_y = (self.hr_upscale_to_x - x) // opt_f, (self.hr_upscale_to_y - y) // opt_f

    def init(self, all_prompts, all_seeds, all_subseeds):
        if not self.enable_hr:
            return
        extra = self.extra_generation_params
        extra["Denoising strength"] = self.denoising_strength
        if self.hr_checkpoint_name:
            self.hr_checkpoint_info = sd_models.get_closet_checkpoint_match(self.hr_checkpoint_name)
            extra["Hires checkpoint"] = self.hr_checkpoint_info.short_title
        if self.hr_sampler_name not in (None, self.sampler_name):
            extra["Hires sampler"] = self.hr_sampler_name
        extra["Hires prompt"] = _other_prompt
        extra["Hires negative prompt"] = _other_negative_prompt
        extra["Hires schedule type"] = None  # the sampler may fill it in
        self.hr_scheduler = self.hr_scheduler or self.scheduler
        self.latent_scale_mode = shared.latent_upscale_modes.get(self.hr_upscaler or "Latent")
        if self.latent_scale_mode is None and not any(u.name == self.hr_upscaler for u in shared.sd_upscalers):
            raise Exception(f"no upscaler {self.hr_upscaler!r}")
        self.calculate_target_resolution()
        extra["Hires steps"], extra["Hires upscaler"] = self.hr_second_pass_steps or None, self.hr_upscaler

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        self.sampler = sd_samplers.create_sampler(self.sampler_name, self.sd_model)
        x, conds = self.rng.next(), (conditioning, unconditional_conditioning)
        self.scripts.process_before_every_sampling(self, x=x, noise=x, c=conds[0], uc=conds[1])
        latents = self.sampler.sample(self, x, *conds, image_conditioning=no_image_conditioning(x))
        if not self.enable_hr:
            return latents
        decoded = None if self.latent_scale_mode else torch.stack(decode_latent_batch(self.sd_model, latents))
        sd_models.reload_model_weights(info=self.hr_checkpoint_info)
        return self.sample_hr_pass(latents, decoded, seeds, subseeds, subseed_strength, prompts)

    def _enlarged(self, latents, pixels) -> torch.Tensor:
        """The first pass's latents in the size of the second, by its upscaler of latents or of pixels."""
        w, h, (cut_x, cut_y) = self.hr_upscale_to_x, self.hr_upscale_to_y, (self.truncate_x, self.truncate_y)
        if self.latent_scale_mode is not None:
            x = torch.nn.functional.interpolate(latents, size=(h // opt_f, w // opt_f), **self.latent_scale_mode)
        else:
            kernel = Image.NEAREST if self.hr_upscaler == "Nearest" else Image.LANCZOS
            larger = to_tensor([to_image(one).resize((w, h), kernel) for one in pixels])
            x = self.sd_model.encode_first_stage(larger * 2 - 1)
        return x[:, :, cut_y // 2 : x.shape[2] - (cut_y + 1) // 2, cut_x // 2 : x.shape[3] - (cut_x + 1) // 2]

    def sample_hr_pass(self, samples, decoded_samples, seeds, subseeds, subseed_strength, prompts):
        if state.interrupted:
            return samples
        self.is_hr_pass = True
        self.sampler = sd_samplers.create_sampler(self.hr_sampler_name or self.sampler_name, self.sd_model)
        x = self._enlarged(samples, decoded_samples)
        self.rng = rng.ImageRNG(x.shape[1:], self.seeds)
        noise = self.rng.next()
        self.calculate_hr_conds()
        self.scripts.before_hr(self)
        self.scripts.process_before_every_sampling(self, x=x, noise=noise, c=self.hr_c, uc=self.hr_uc)
        conds, steps = (self.hr_c, self.hr_uc), self.hr_second_pass_steps or self.steps
        samples = self.sampler.sample_img2img(
            self, x, noise, *conds, steps=steps, image_conditioning=no_image_conditioning(x)
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
            self.all_hr_prompts = len(self.all_prompts) * [self.hr_prompt]
            self.all_hr_negative_prompts = len(self.all_prompts) * [self.hr_negative_prompt]

    def calculate_hr_conds(self):
        if self.hr_c is None:
            batch = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
            self.hr_prompts = self.all_hr_prompts[batch]
            self.hr_negative_prompts = self.all_hr_negative_prompts[batch]
            steps = self.hr_second_pass_steps or self.steps
            self.hr_c, self.hr_uc = self._conds(self.hr_prompts, self.hr_negative_prompts, steps)

    def setup_conds(self):
        if self.is_hr_pass:  # asked for by the refiner
            self.hr_c = None
            self.calculate_hr_conds()
            return
        super().setup_conds()
        self.hr_c = self.hr_uc = None

    def get_conds(self):
        return (self.hr_c, self.hr_uc) if self.is_hr_pass else super().get_conds()
