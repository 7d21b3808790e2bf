"""Tell scripts and callbacks about each gradio component before and after it is made. Importing this patches gradio."""

from __future__ import annotations

import functools

import gradio as gr

from modules import script_callbacks, scripts


def _announce(init):
    @functools.wraps(init)
    def wrapped(self, *args, **kwargs):
        kwargs.pop("tooltip", None)
        if scripts.scripts_current is not None:
            scripts.scripts_current.before_component(self, **kwargs)
        script_callbacks.before_component_callback(self, **kwargs)
        init(self, *args, **kwargs)
        script_callbacks.after_component_callback(self, **kwargs)
        if scripts.scripts_current is not None:
            scripts.scripts_current.after_component(self, **kwargs)

    return wrapped


gr.components.IOComponent.__init__ = _announce(gr.components.IOComponent.__init__)
gr.blocks.BlockContext.__init__ = _announce(gr.blocks.BlockContext.__init__)
