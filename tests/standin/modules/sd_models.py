"""Checkpoints: which exist, which is loaded, and switching between them.

The host's rule, kept here: a checkpoint with the same config as the loaded one gets its weights copied into the same
UNet object; any other one is a new object (or one kept from before, when `opts.sd_checkpoints_limit` > 1).
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
    def filename(self) -> str:
        return f"{self.name}.safetensors"

    @property
    def shorthash(self) -> str:
        return f"{self.seed:010x}"

    @property
    def sha256(self) -> str:
        return f"{self.seed:064x}"

    @property
    def title(self) -> str:
        return f"{self.filename} [{self.shorthash}]"

    @property
    def short_title(self) -> str:
        return f"{self.name} [{self.shorthash}]"


checkpoints_list = {
    info.title: info
    for info in (
        CheckpointInfo("tiny-sd1", "sd1", 1),
        CheckpointInfo("tiny-sd1-b", "sd1", 2),
        CheckpointInfo("tiny-sdxl", "sdxl", 3),
    )
}
checkpoint_aliases = {
    alias: info
    for info in checkpoints_list.values()
    for alias in (info.title, info.short_title, info.name, info.filename, info.shorthash, info.sha256)
}


def get_closet_checkpoint_match(search: str | None) -> CheckpointInfo | None:
    if not search:
        return None
    return checkpoint_aliases.get(search) or next((i for i in checkpoints_list.values() if search in i.title), None)


def select_checkpoint() -> CheckpointInfo:
    """What the settings ask for, else the first there is."""
    return get_closet_checkpoint_match(shared.opts.sd_model_checkpoint) or next(iter(checkpoints_list.values()))


class SkipWritingToConfig:
    """While entered, loading a checkpoint leaves the setting sd_model_checkpoint alone."""

    skip = False

    def __enter__(self):
        self.previous, SkipWritingToConfig.skip = SkipWritingToConfig.skip, True

    def __exit__(self, *exc):
        SkipWritingToConfig.skip = self.previous


class SdModelData:
    def __init__(self) -> None:
        self.sd_model = None
        self.loaded_sd_models: list = []  # the current one first

    def get_sd_model(self):
        if self.sd_model is None:
            load_model(select_checkpoint())
        return self.sd_model

    def set_sd_model(self, model, already_loaded: bool = False) -> None:
        self.sd_model = model
        self.loaded_sd_models = [model, *(m for m in self.loaded_sd_models if m is not model)]


model_data = SdModelData()


def _load_weights(model, info: CheckpointInfo) -> None:
    tiny_models.load_weights(model, info.config, info.seed)
    model.sd_checkpoint_info, model.sd_model_checkpoint, model.sd_model_hash = info, info.filename, info.shorthash
    model.used_config = info.config
    if not SkipWritingToConfig.skip:
        shared.opts.data["sd_model_checkpoint"] = info.title


def load_model(info: CheckpointInfo):
    """Build a new model; it becomes the current one."""
    model = tiny_models.build(info.config)
    _load_weights(model, info)
    model_data.set_sd_model(model)
    script_callbacks.model_loaded_callback(model)
    return model


def reload_model_weights(sd_model=None, info: CheckpointInfo | None = None, forced_reload: bool = False):
    """Make `info` (default: what the settings ask for) the current checkpoint; nothing happens if it is already."""
    info = info or select_checkpoint()
    current = model_data.sd_model
    if current is not None and current.sd_checkpoint_info == info and not forced_reload:
        return current
    limit, loaded = shared.opts.sd_checkpoints_limit, model_data.loaded_sd_models
    for model in reversed(loaded[:]):
        if len(loaded) > limit > 0 and model.sd_checkpoint_info != info:
            loaded.remove(model)
    kept = next((m for m in loaded if m.sd_checkpoint_info == info), None)
    if kept is not None:  # no model_loaded callback here, on the host neither
        model_data.set_sd_model(kept)
        if not SkipWritingToConfig.skip:
            shared.opts.data["sd_model_checkpoint"] = info.title
        return kept
    if limit > 1 and len(loaded) < limit:
        return load_model(info)
    reused = loaded.pop() if loaded else None
    if reused is None or reused.used_config != info.config:
        return load_model(info)
    _load_weights(reused, info)
    model_data.set_sd_model(reused)
    script_callbacks.model_loaded_callback(reused)
    return reused


shared.opts.data_labels["sd_model_checkpoint"].onchange = reload_model_weights
