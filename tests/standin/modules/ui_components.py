"""Components that extensions use besides gradio's own."""

from __future__ import annotations

import gradio as gr


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
    def __init__(self, *args, **kwargs):
        super().__init__(*args, elem_classes=["tool", *kwargs.pop("elem_classes", [])], **kwargs)

    def get_block_name(self):
        return "button"


class DropdownMulti(FormComponent, gr.Dropdown):
    def __init__(self, **kwargs):
        super().__init__(multiselect=True, **kwargs)

    def get_block_name(self):
        return "dropdown"


class InputAccordion(gr.Checkbox):
    """An accordion whose open state is a value: a hidden checkbox `<id>-checkbox` beside an Accordion `<id>`.

    The browser adds a visible checkbox `<id>-visible-checkbox` to the accordion's label. Entering it (`with`) enters
    the accordion.
    """

    global_index = 0

    def __init__(self, value: bool, **kwargs):
        self.accordion_id = kwargs.pop("elem_id", None)
        if self.accordion_id is None:
            self.accordion_id = f"input-accordion-{InputAccordion.global_index}"
            InputAccordion.global_index += 1
        visible = kwargs.pop("visible", True)
        super().__init__(value, elem_id=f"{self.accordion_id}-checkbox", visible=False, **kwargs)
        self.change(fn=None, inputs=[self], _js=f'function(on) {{ inputAccordionChecked("{self.accordion_id}", on); }}')
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
