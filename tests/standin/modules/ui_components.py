"""Components that extensions use besides gradio's own. With gradio 3.41.2 as on A1111, with 4.40.0 as on Forge."""

from __future__ import annotations

import functools

import gradio as gr

IS_GRADIO_4 = gr.__version__.startswith("4.")
if IS_GRADIO_4:
    # As Forge does: no stubs written beside the sources, and subclasses keep their own constructors.
    gr.component_meta.create_or_modify_pyi = lambda *_: None
    gr.component_meta.updateable = lambda init: init


class InputAccordionImpl(gr.Checkbox):
    """An accordion whose open state is a value: a hidden checkbox `<id>-checkbox` beside an Accordion `<id>`.

    The browser adds a visible checkbox `<id>-visible-checkbox` to the accordion's label. Entering it (`with`) enters
    the accordion. Gradio 4 makes another one, without `setup`, for each update that it sends to the page, and sends it
    the parameters of the base's constructor.
    """

    @functools.wraps(gr.Checkbox.__init__)
    def __init__(self, value: bool | None = None, setup: bool = False, **kwargs):
        if not setup:
            super().__init__(value, **kwargs)
            return
        elem_id = kwargs.pop("elem_id")
        super().__init__(value, elem_id=f"{elem_id}-checkbox", visible=False, **kwargs)
        follow = f'function(on) {{ inputAccordionChecked("{elem_id}", on); }}'
        self.change(fn=None, inputs=[self], **{"js" if IS_GRADIO_4 else "_js": follow})
        self.accordion = gr.Accordion(elem_id=elem_id, open=value, elem_classes=["input-accordion"], **kwargs)

    def __enter__(self):
        self.accordion.__enter__()
        return self

    def __exit__(self, *exc):
        self.accordion.__exit__(*exc)

    def get_block_name(self):
        return "checkbox"


def InputAccordion(value: bool | None = None, **kwargs) -> InputAccordionImpl:
    return InputAccordionImpl(value, setup=True, **kwargs)
