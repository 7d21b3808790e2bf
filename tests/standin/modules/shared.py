"""What everything shares: settings, the state of the current job, and the loaded checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class OptionInfo:
    """Describes a setting: its default, and how the Settings page shows it."""

    do_not_save = False

    def __init__(self, default=None, label="", component=None, component_args=None):
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.section, self.comment_after = None, ""

    def info(self, info: str) -> OptionInfo:
        """A remark behind the setting's label."""
        self.comment_after += f"<span>({info})</span>"
        return self

    def needs_reload_ui(self) -> OptionInfo:
        return self.info("after Reload UI")


class OptionHTML(OptionInfo):
    """A line of text between the settings; it has no value."""

    do_not_save = True


class Options:
    """Holds the settings' values as attributes: `opts.x` is the value set, else the default."""

    def __init__(self, data_labels: dict[str, OptionInfo]):
        self.data_labels = data_labels
        self.data = {key: info.default for key, info in data_labels.items()}

    def __getattr__(self, item: str) -> Any:
        if item in self.data:
            return self.data[item]
        if item in self.data_labels:
            return self.data_labels[item].default
        raise AttributeError(f"'Options' object has no attribute '{item}'")

    def set(self, key: str, value: Any) -> None:
        self.data[key] = value

    def add_option(self, key: str, info: OptionInfo) -> None:
        self.data_labels[key] = info
        if not info.do_not_save:
            self.data.setdefault(key, info.default)


cmd_opts = SimpleNamespace(api_auth=None)
DEFAULTS = dict(
    sd_model_checkpoint="tiny-sd1",
    batch_cond_uncond=True,
    pad_cond_uncond=False,
    s_min_uncond=0.0,
    s_min_uncond_all=False,
    skip_early_cond=0.0,
)
opts = Options({key: OptionInfo(value, key) for key, value in DEFAULTS.items()})

latent_upscale_modes = {"Latent": {"mode": "bilinear"}}
sd_upscalers = [SimpleNamespace(name=name) for name in ("None", "Lanczos", "Nearest")]


class State:
    """What is known of the running job, and the requests to end it."""

    job, sampling_step, sampling_steps = "", 0, 0
    skipped = interrupted = False

    def begin(self, job: str) -> None:
        self.job, self.sampling_step, self.sampling_steps = job, 0, 0
        self.skipped = self.interrupted = False

    def end(self) -> None:
        self.job = ""

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True


state = State()


def __getattr__(name: str) -> Any:
    """`sd_model`: the checkpoint is loaded when it is first asked for."""
    if name != "sd_model":
        raise AttributeError(name)
    from modules import sd_models

    return sd_models.model_data.sd_model or sd_models.load_model(sd_models.select_checkpoint())
