"""Tell scripts and callbacks about each gradio component before and after it is made. Importing this patches gradio.

With gradio 3.41.2 the page is as on A1111, with 4.40.0 as on Forge.
"""

from __future__ import annotations

import functools

import gradio as gr

from modules import script_callbacks, scripts

IS_GRADIO_4 = gr.__version__.startswith("4.")


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


if IS_GRADIO_4:
    # As Forge does: no stubs written beside the sources, and subclasses keep their own constructors.
    gr.component_meta.create_or_modify_pyi = lambda *_: None
    gr.component_meta.updateable = lambda init: init
component = gr.components.Component if IS_GRADIO_4 else gr.components.IOComponent
component.__init__ = _announce(component.__init__)
gr.blocks.BlockContext.__init__ = _announce(gr.blocks.BlockContext.__init__)
