"""What everything shares: settings, the state of the current job, and the loaded checkpoint."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

from modules.options import OptionHTML, OptionInfo, Options  # noqa: F401  (used by extensions)

cmd_opts = SimpleNamespace(api_auth=None)
DEFAULTS = dict(
    sd_model_checkpoint="tiny-sd1",
    sd_checkpoints_limit=1,
    CLIP_stop_at_last_layers=1,
    # classifier-free guidance
    batch_cond_uncond=True,
    pad_cond_uncond=False,
    s_min_uncond=0.0,
    s_min_uncond_all=False,
    skip_early_cond=0.0,
)
opts = Options({key: OptionInfo(value, key) for key, value in DEFAULTS.items()})
opts.data_labels["sd_model_checkpoint"].infotext = "Model hash"
opts.data_labels["CLIP_stop_at_last_layers"].infotext = "Clip skip"

latent_upscale_default_mode = "Latent"
latent_upscale_modes = {
    "Latent": {"mode": "bilinear"},
    "Latent (bicubic)": {"mode": "bicubic"},
    "Latent (nearest-exact)": {"mode": "nearest-exact"},
}
sd_upscalers = [SimpleNamespace(name=name) for name in ("None", "Lanczos", "Nearest")]


class State:
    """Progress of the running job, and the requests to end it."""

    def __init__(self) -> None:
        self.begin("")
        self.job_count = 0

    def begin(self, job: str) -> None:
        self.job, self.job_no, self.job_count = job, 0, -1
        self.skipped = self.interrupted = self.processing_has_refined_job_count = False
        self.sampling_step = self.sampling_steps = 0

    def end(self) -> None:
        self.job, self.job_count = "", 0

    def nextjob(self) -> None:
        self.job_no += 1
        self.sampling_step = 0

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True


state = State()


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
