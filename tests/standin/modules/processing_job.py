"""A job: what was asked for, and what is known while it runs. Import it from `processing`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from modules import prompt_parser, sd_samplers, sd_samplers_common, shared

opt_C, opt_f = 4, 8  # latent channels; pixels per latent cell
NOT_YET = (
    *("sampler", "c", "uc", "rng", "scripts_value", "script_args_value"),
    *("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds"),
    *("prompts", "negative_prompts", "seeds", "subseeds", "extra_network_data"),
    *("sd_model_name", "sd_model_hash", "refiner_checkpoint_info", "sampler_noise_scheduler_override"),
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
    tiling: bool = None

    # How it is sampled; None goes by the settings.
    steps: int = 50
    sampler_name: str = None
    scheduler: str = None
    cfg_scale: float = 7.0
    denoising_strength: float = None
    s_min_uncond: float = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0

    # With what.
    sd_model: object = None
    refiner_checkpoint: str = None
    refiner_switch_at: float = None
    disable_extra_networks: bool = False
    override_settings: dict[str, Any] = None
    override_settings_restore_afterwards: bool = True
    firstpass_image: Image = None

    is_api = is_hr_pass = scripts_setup_complete = False
    iteration = 0

    def __post_init__(self):
        for name in NOT_YET:
            setattr(self, name, None)
        self.comments, self.extra_generation_params = {}, {}
        self.override_settings = self.override_settings or {}

    # The loaded model, whichever that is at the moment; the field of that name only takes the constructor's argument.
    sd_model = property(lambda self: shared.sd_model, lambda self, given: None)  # noqa: PIE794

    scripts = property(
        lambda self: self.scripts_value, lambda self, given: self._setup_scripts_once(scripts_value=given)
    )
    script_args = property(
        lambda self: self.script_args_value, lambda self, given: self._setup_scripts_once(script_args_value=given)
    )

    def _setup_scripts_once(self, **known) -> None:
        """The `setup` hook: as soon as both scripts and their arguments are known."""
        vars(self).update(known)
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.scripts_setup_complete = True
            self.scripts.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def init(self, all_prompts, all_seeds, all_subseeds):
        """Prepares what all batches share."""

    def close(self):
        self.sampler = self.c = self.uc = None

    def _one_per_image(self, prompt) -> list:
        return prompt if isinstance(prompt, list) else self.batch_size * self.n_iter * [prompt]

    def setup_prompts(self):
        self.all_prompts = self._one_per_image(self.prompt)
        self.all_negative_prompts = self._one_per_image(self.negative_prompt)
        if len(self.all_prompts) != len(self.all_negative_prompts):
            raise RuntimeError("as many negative prompts as prompts are needed")

    def _conds(self, prompts, negative_prompts, width: int, height: int, sampler_name: str | None, steps: int):
        """(cond, uncond) with the model loaded now."""
        total = sd_samplers.find_sampler_config(sampler_name).total_steps(steps)
        negative = prompt_parser.SdConditioning(negative_prompts, is_negative_prompt=True, width=width, height=height)
        uc = prompt_parser.get_learned_conditioning(self.sd_model, negative, total)
        positive = prompt_parser.SdConditioning(prompts, width=width, height=height)
        return prompt_parser.get_multicond_learned_conditioning(self.sd_model, positive, total), uc

    def setup_conds(self):
        self.c, self.uc = self._conds(
            self.prompts, self.negative_prompts, self.width, self.height, self.sampler_name, self.steps
        )

    def get_conds(self):
        return self.c, self.uc

    def parse_extra_network_prompts(self):
        self.extra_network_data = {}

    def activate_extra_networks(self):
        """Stands in for extra_networks.activate, of which only the hook is modelled."""
        if not self.disable_extra_networks and self.scripts is not None:
            self.scripts.after_extra_networks_activate(
                self,
                batch_number=self.iteration,
                prompts=self.prompts,
                seeds=self.seeds,
                subseeds=self.subseeds,
                extra_network_data=self.extra_network_data,
            )


def no_image_conditioning(latents: torch.Tensor) -> torch.Tensor:
    """What the host gives models without a picture among their inputs."""
    return latents.new_zeros(len(latents), 5, 1, 1)


class DecodedSamples(list):
    already_decoded = True


def decode_latent_batch(model, batch) -> DecodedSamples:
    return DecodedSamples(sd_samplers_common.decode_first_stage(model, batch[i : i + 1])[0] for i in range(len(batch)))
