"""A job: what was asked for, and what is known while it runs. Import it from `processing`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from modules import devices, prompt_parser, sd_samplers, sd_samplers_common, shared
from modules.script_runner import ScriptRunner
from modules.shared import opts

opt_C, opt_f = 4, 8  # latent channels; pixels per latent cell


@dataclass(repr=False)
class StableDiffusionProcessing:
    sd_model: object = None
    outpath_samples: str = None
    outpath_grids: str = None
    prompt: str = ""
    prompt_for_display: str = None
    negative_prompt: str = ""
    styles: list[str] = None
    seed: int = -1
    subseed: int = -1
    subseed_strength: float = 0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    seed_enable_extras: bool = True
    sampler_name: str = None
    scheduler: str = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool = None
    tiling: bool = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: dict[str, Any] = None
    overlay_images: list = None
    eta: float = None
    do_not_reload_embeddings: bool = False
    denoising_strength: float = None
    ddim_discretize: str = None
    s_min_uncond: float = None
    s_churn: float = None
    s_tmax: float = None
    s_tmin: float = None
    s_noise: float = None
    override_settings: dict[str, Any] = None
    override_settings_restore_afterwards: bool = True
    sampler_index: int = None
    refiner_checkpoint: str = None
    refiner_switch_at: float = None
    token_merging_ratio = 0
    token_merging_ratio_hr = 0
    disable_extra_networks: bool = False
    firstpass_image: Image = None

    # Set while the job runs.
    scripts_value: ScriptRunner = field(default=None, init=False)
    script_args_value: list = field(default=None, init=False)
    scripts_setup_complete: bool = field(default=False, init=False)
    comments: dict = field(default=None, init=False)
    sampler: sd_samplers_common.Sampler | None = field(default=None, init=False)
    is_using_inpainting_conditioning: bool = field(default=False, init=False)
    paste_to: tuple | None = field(default=None, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)
    rng: Any = field(default=None, init=False)
    step_multiplier: int = field(default=1, init=False)
    color_corrections: list = field(default=None, init=False)
    all_prompts: list = field(default=None, init=False)
    all_negative_prompts: list = field(default=None, init=False)
    all_seeds: list = field(default=None, init=False)
    all_subseeds: list = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    main_prompt: str = field(default=None, init=False)
    main_negative_prompt: str = field(default=None, init=False)
    prompts: list = field(default=None, init=False)
    negative_prompts: list = field(default=None, init=False)
    seeds: list = field(default=None, init=False)
    subseeds: list = field(default=None, init=False)
    extra_network_data: dict = field(default=None, init=False)
    user: str = field(default=None, init=False)
    sd_model_name: str = field(default=None, init=False)
    sd_model_hash: str = field(default=None, init=False)
    sd_vae_name: str = field(default=None, init=False)
    sd_vae_hash: str = field(default=None, init=False)
    is_api: bool = field(default=False, init=False)

    def __post_init__(self):
        self.comments = {}
        self.styles = self.styles or []
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        self.script_args = self.script_args or {}
        self.sampler_noise_scheduler_override = self.refiner_checkpoint_info = None

    def fill_fields_from_opts(self) -> None:
        for name in ("s_min_uncond", "s_churn", "s_tmin", "s_tmax", "s_noise"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(opts, name))
        self.s_tmax = self.s_tmax or float("inf")

    # The loaded model, whichever that is at the moment; a dataclass field above keeps the constructor's argument.
    @property
    def sd_model(self):  # noqa: F811
        return shared.sd_model

    @sd_model.setter
    def sd_model(self, value):
        pass

    @property
    def scripts(self):
        return self.scripts_value

    @scripts.setter
    def scripts(self, value):
        self.scripts_value = value
        self._setup_scripts_once()

    @property
    def script_args(self):
        return self.script_args_value

    @script_args.setter
    def script_args(self, value):
        self.script_args_value = value
        self._setup_scripts_once()

    def _setup_scripts_once(self) -> None:
        """The `setup` hook: as soon as both scripts and their arguments are known."""
        if self.scripts_value and self.script_args_value and not self.scripts_setup_complete:
            self.scripts_setup_complete = True
            self.scripts.setup_scrips(self, is_ui=not self.is_api)

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def txt2img_image_conditioning(self, x, width=None, height=None):
        return x.new_zeros(x.shape[0], 5, 1, 1)

    def img2img_image_conditioning(self, source_image, latent_image, image_mask=None, round_image_mask=True):
        return latent_image.new_zeros(latent_image.shape[0], 5, 1, 1)

    def init(self, all_prompts, all_seeds, all_subseeds):
        pass

    def sample(self, conditioning, unconditional_conditioning, seeds, subseeds, subseed_strength, prompts):
        raise NotImplementedError()

    def close(self):
        self.sampler = self.c = self.uc = None

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        ratio = self.token_merging_ratio or opts.token_merging_ratio
        return (self.token_merging_ratio_hr or opts.token_merging_ratio_hr or ratio) if for_hr else ratio

    def _one_per_image(self, prompt) -> list:
        return prompt if isinstance(prompt, list) else self.batch_size * self.n_iter * [prompt]

    def setup_prompts(self):
        self.all_prompts = self._one_per_image(self.prompt)
        self.all_negative_prompts = self._one_per_image(self.negative_prompt)
        if len(self.all_prompts) != len(self.all_negative_prompts):
            raise RuntimeError("as many negative prompts as prompts are needed")
        self.main_prompt, self.main_negative_prompt = self.all_prompts[0], self.all_negative_prompts[0]

    def _conds(self, prompts, negative_prompts, width: int, height: int, sampler_name: str | None, steps: int):
        """(cond, uncond) with the model loaded now."""
        total = sd_samplers.find_sampler_config(sampler_name).total_steps(steps)
        negative = prompt_parser.SdConditioning(negative_prompts, is_negative_prompt=True, width=width, height=height)
        uc = prompt_parser.get_learned_conditioning(self.sd_model, negative, total)
        positive = prompt_parser.SdConditioning(prompts, width=width, height=height)
        return prompt_parser.get_multicond_learned_conditioning(self.sd_model, positive, total), uc

    def setup_conds(self):
        self.firstpass_steps = sd_samplers.find_sampler_config(self.sampler_name).total_steps(self.steps)
        self.step_multiplier = self.firstpass_steps // self.steps
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

    def save_samples(self) -> bool:
        return False


class DecodedSamples(list):
    already_decoded = True


def decode_latent_batch(model, batch, target_device=None, check_for_nans=False) -> DecodedSamples:
    devices.test_for_nans(batch, "unet")
    return DecodedSamples(sd_samplers_common.decode_first_stage(model, batch[i : i + 1])[0] for i in range(len(batch)))
