"""Components that extensions use besides gradio's own.

Their constructors pass for those of their bases, whose parameters gradio 4 sends to the page.
"""

from __future__ import annotations

import functools

import gradio as gr

from modules.gradio_extensons import IS_GRADIO_4


class FormComponent:
    def get_expected_parent(self):
        return gr.components.Form


gr.Dropdown.get_expected_parent = FormComponent.get_expected_parent


def _form(base: type, block: str) -> type:
    """A subclass of `base` that fits in a Form but is drawn as the gradio block `block`."""
    return type(f"Form{base.__name__}", (FormComponent, base), {"get_block_name": lambda self: block})


FormRow, FormColumn, FormGroup = _form(gr.Row, "row"), _form(gr.Column, "column"), _form(gr.Group, "group")
FormHTML, FormColorPicker = _form(gr.HTML, "html"), _form(gr.ColorPicker, "colorpicker")


class ToolButton(FormComponent, gr.Button):
    @functools.wraps(gr.Button.__init__)
    def __init__(self, *args, **kwargs):
        super().__init__(*args, elem_classes=["tool", *kwargs.pop("elem_classes", [])], **kwargs)

    def get_block_name(self):
        return "button"


class DropdownMulti(FormComponent, gr.Dropdown):
    @functools.wraps(gr.Dropdown.__init__)
    def __init__(self, **kwargs):
        super().__init__(multiselect=True, **kwargs)

    def get_block_name(self):
        return "dropdown"


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
