"""Components that extensions use besides gradio's own.

Their constructors pass for those of their bases, whose parameters gradio 4 sends to the page. With gradio 3.41.2 the
page is as on A1111, with 4.40.0 as on Forge.
"""

from __future__ import annotations

import functools

import gradio as gr

IS_GRADIO_4 = gr.__version__.startswith("4.")
if IS_GRADIO_4:
    # As Forge does: no stubs written beside the sources, and subclasses keep their own constructors.
    gr.component_meta.create_or_modify_pyi = lambda *_: None
    gr.component_meta.updateable = lambda init: init


def _in_a_form(component) -> type:
    """The container that gradio puts around a component which is not in one yet."""
    return gr.components.Form


gr.Dropdown.get_expected_parent = _in_a_form


class ToolButton(gr.Button):
    get_expected_parent = _in_a_form

    @functools.wraps(gr.Button.__init__)
    def __init__(self, *args, **kwargs):
        super().__init__(*args, elem_classes=["tool", *kwargs.pop("elem_classes", [])], **kwargs)

    def get_block_name(self):
        return "button"


class InputAccordionImpl(gr.Checkbox):
    """An accordion whose open state is a value: a hidden checkbox `<id>-checkbox` beside an Accordion `<id>`.

    The browser adds a visible checkbox `<id>-visible-checkbox` to the accordion's label. Entering it (`with`) enters
    the accordion. Gradio 4 makes another one, without `setup`, for each update that it sends to the page.
    """

    global_index = 0

    @functools.wraps(gr.Checkbox.__init__)
    def __init__(self, value: bool | None = None, setup: bool = False, **kwargs):
        if not setup:
            super().__init__(value, **kwargs)
            return
        self.accordion_id = kwargs.pop("elem_id", None)
        if self.accordion_id is None:
            self.accordion_id = f"input-accordion-{InputAccordionImpl.global_index}"
            InputAccordionImpl.global_index += 1
        visible = kwargs.pop("visible", True)
        super().__init__(value, elem_id=f"{self.accordion_id}-checkbox", visible=False, **kwargs)
        follow = f'function(on) {{ inputAccordionChecked("{self.accordion_id}", on); }}'
        self.change(fn=None, inputs=[self], **{"js" if IS_GRADIO_4 else "_js": follow})
        kwargs["label"] = kwargs.get("label", "Accordion")
        self.accordion = gr.Accordion(
            elem_id=self.accordion_id, open=value, visible=visible, **kwargs | {"elem_classes": ["input-accordion"]}
        )

    def extra(self) -> gr.Column:
        """A place in the accordion's label."""
        return gr.Column(elem_id=f"{self.accordion_id}-extra", elem_classes="input-accordion-extra", min_width=0)

    def __enter__(self):
        self.accordion.__enter__()
        return self

    def __exit__(self, *exc):
        self.accordion.__exit__(*exc)

    def get_block_name(self):
        return "checkbox"


def InputAccordion(value: bool | None = None, **kwargs) -> InputAccordionImpl:
    return InputAccordionImpl(value, setup=True, **kwargs)
