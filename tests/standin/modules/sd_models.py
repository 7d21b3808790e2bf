"""Checkpoints: which exist, which is loaded, and switching between them.

The host's rule, kept here: a checkpoint with the same config as the loaded one gets its weights copied into the same
UNet object; any other one is a new object.
"""

from __future__ import annotations

from dataclasses import dataclass

from modules import script_callbacks, shared, tiny_models


@dataclass(frozen=True)
class CheckpointInfo:
    name: str
    config: str  # a key of tiny_models.CONFIGS
    seed: int

    @property
    def short_title(self) -> str:
        return f"{self.name} [{self.seed:010x}]"

    @property
    def title(self) -> str:
        return f"{self.name}.safetensors [{self.seed:010x}]"


CHECKPOINTS = [
    CheckpointInfo("tiny-sd1", "sd1", 1),
    CheckpointInfo("tiny-sd1-b", "sd1", 2),
    CheckpointInfo("tiny-sdxl", "sdxl", 3),
]
checkpoint_aliases = {alias: info for info in CHECKPOINTS for alias in (info.title, info.short_title, info.name)}


def get_closet_checkpoint_match(search: str | None) -> CheckpointInfo | None:
    """The checkpoint of that name or title."""
    return checkpoint_aliases.get(search)


def select_checkpoint() -> CheckpointInfo:
    """What the settings ask for, else the first there is."""
    return get_closet_checkpoint_match(shared.opts.sd_model_checkpoint) or CHECKPOINTS[0]


class SdModelData:
    sd_model = None
    loaded_sd_models = property(lambda self: [self.sd_model])  # the host can keep more


model_data = SdModelData()


def load_model(info: CheckpointInfo, into=None):
    """Load a checkpoint, into a new model where none is given; it becomes the current one."""
    model = tiny_models.LatentDiffusion(info.config).eval() if into is None else into
    model.model.diffusion_model.load_state_dict(tiny_models.weights(info.config, info.seed))
    model.sd_checkpoint_info, model.sd_model_hash = info, f"{info.seed:010x}"
    model_data.sd_model = model
    script_callbacks.model_loaded_callback(model)
    return model


def reload_model_weights(sd_model=None, info: CheckpointInfo | None = None):
    """Make `info` (default: what the settings ask for) the current checkpoint; nothing happens if it is already."""
    info, current = info or select_checkpoint(), model_data.sd_model
    if current is None or current.sd_checkpoint_info.config != info.config:
        return load_model(info)
    return current if current.sd_checkpoint_info == info else load_model(info, into=current)
