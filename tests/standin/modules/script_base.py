"""The class that scripts of extensions inherit from, and what its hooks are given. Import it from `scripts`."""

from __future__ import annotations

import re
from typing import Any

import gradio as gr

AlwaysVisible = object()


# Hooks, with the arguments that each gets between `p` and the script's own arguments.
HOOKS: dict[str, tuple[str, ...]] = {
    "setup": (),
    "before_process": (),
    "process": (),
    "before_process_batch": (),
    "after_extra_networks_activate": (),
    "process_batch": (),
    "process_before_every_sampling": (),
    "before_hr": (),
    "on_mask_blend": ("mba",),
    "post_sample": ("ps",),
    "postprocess_batch": (),
    "postprocess_batch_list": ("pp",),
    "postprocess_image": ("pp",),
    "postprocess_maskoverlay": ("ppmo",),
    "postprocess_image_after_composite": ("pp",),
    "postprocess": ("processed",),
}


def do_nothing(self, p, *args, **kwargs):
    """Called at this stage of a job, for scripts that are always on."""


class Script:
    """What an extension inherits from; every hook does nothing until overridden."""

    name: str | None = None  # title in lower case, set when the UI is built
    section: str | None = None
    filename: str = ""
    args_from: int = 0  # this script's slice of p.script_args
    args_to: int = 0
    alwayson = False
    is_txt2img = is_img2img = False
    tabname: str | None = None
    group: gr.Group | None = None
    create_group = True
    infotext_fields: list | None = None  # [(component, name or function)], set in ui()
    paste_field_names: list[str] | None = None
    api_info: dict | None = None
    setup_for_ui_only = False
    controls: list | None = None

    def title(self) -> str:
        raise NotImplementedError()

    def ui(self, is_img2img: bool) -> list | None:
        """Create and return the components whose values become the hooks' arguments."""

    def show(self, is_img2img: bool) -> Any:
        return True

    def run(self, p, *args):
        """Only for scripts chosen in the dropdown: do the whole job and return a Processed."""

    def elem_id(self, item_id: str) -> str:
        both_tabs = self.show(True) == self.show(False)
        tab = ("img2img_" if self.is_img2img else "txt2img_") if both_tabs else ""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{tab}{title}_{item_id}"


for _name in HOOKS:
    setattr(Script, _name, do_nothing)
