"""What everything shares: settings, the state of the current job, and the loaded checkpoint."""

from __future__ import annotations

import datetime
import sys
import time
import types
from types import SimpleNamespace

from modules.options import OptionHTML, OptionInfo, Options, options_section  # noqa: F401  (used by extensions)

cmd_opts = SimpleNamespace(
    api=True,
    api_auth=None,
    nowebui=False,
    api_log=False,
    hide_ui_dir_config=False,
    no_prompt_history=False,
    no_half=True,
    use_cpu=["all"],
    lowvram=False,
    medvram=False,
    data_dir=None,
)
device = "cpu"
demo = None
DEFAULTS = dict(
    sd_model_checkpoint="tiny-sd1",
    sd_checkpoints_limit=1,
    CLIP_stop_at_last_layers=1,
    # samplers
    eta_ancestral=1.0,
    eta_ddim=0.0,
    s_churn=0.0,
    s_tmin=0.0,
    s_tmax=0.0,
    s_noise=1.0,
    sigma_min=0.0,
    sigma_max=0.0,
    rho=0.0,
    eta_noise_seed_delta=0,
    always_discard_next_to_last_sigma=False,
    sgm_noise_multiplier=False,
    enable_quantization=False,
    beta_dist_alpha=0.6,
    beta_dist_beta=0.6,
    no_dpmpp_sde_batch_determinism=False,
    use_old_karras_scheduler_sigmas=False,
    hide_samplers=[],
    # classifier-free guidance
    batch_cond_uncond=True,
    pad_cond_uncond=False,
    s_min_uncond=0.0,
    s_min_uncond_all=False,
    skip_early_cond=0.0,
    # passes
    img2img_fix_steps=False,
    initial_noise_multiplier=1.0,
    img2img_extra_noise=0.0,
    hires_fix_refiner_pass="second pass",
    refiner_switch_by_sample_steps=False,
    tiling=False,
    token_merging_ratio=0.0,
    token_merging_ratio_hr=0.0,
    # output
    enable_pnginfo=True,
    samples_format="png",
    add_model_name_to_info=True,
    add_model_hash_to_info=True,
    add_version_to_infotext=True,
    return_grid=True,
    do_not_show_images=False,
    infotext_skip_pasting=[],
    live_previews_enable=False,
    show_progress_every_n_steps=10,
)
opts = Options({key: OptionInfo(value, key) for key, value in DEFAULTS.items()})
opts.data_labels["sd_model_checkpoint"].infotext = "Model hash"
opts.data_labels["CLIP_stop_at_last_layers"].infotext = "Clip skip"

latent_upscale_default_mode = "Latent"
latent_upscale_modes = {
    "Latent": {"mode": "bilinear", "antialias": False},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic)": {"mode": "bicubic", "antialias": False},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
    "Latent (nearest)": {"mode": "nearest", "antialias": False},
    "Latent (nearest-exact)": {"mode": "nearest-exact", "antialias": False},
}
sd_upscalers = [SimpleNamespace(name=name) for name in ("None", "Lanczos", "Nearest")]


class State:
    """Progress of the running job, and the requests to end it."""

    KEYS = (
        "skipped",
        "interrupted",
        "stopping_generation",
        "job",
        "job_count",
        "job_timestamp",
        "job_no",
        "sampling_step",
        "sampling_steps",
    )

    def __init__(self) -> None:
        self.begin("")
        self.job_count = 0

    def begin(self, job: str = "(unknown)") -> None:
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job, self.job_no, self.job_count = job, 0, -1
        self.processing_has_refined_job_count = False
        self.job_timestamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        self.sampling_step = self.sampling_steps = 0
        self.current_latent = self.current_image = self.textinfo = None
        self.time_start = time.time()

    def end(self) -> None:
        self.job, self.job_count = "", 0

    def nextjob(self) -> None:
        self.job_no += 1
        self.sampling_step = 0

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True

    def stop_generating(self) -> None:
        self.stopping_generation = True

    def dict(self) -> dict:
        return {key: getattr(self, key) for key in self.KEYS}


state = State()
total_tqdm = SimpleNamespace(update=lambda: None, updateTotal=lambda new_total: None, clear=lambda: None)


class _Shared(types.ModuleType):
    """Gives the module its `sd_model` property: the checkpoint is loaded when it is first asked for."""

    @property
    def sd_model(self):
        from modules import sd_models

        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value):
        from modules import sd_models

        sd_models.model_data.set_sd_model(value)


sys.modules[__name__].__class__ = _Shared
