"""Infotext: quoting, parsing, and pasting it back into components."""

from __future__ import annotations

import json
import re
from collections import namedtuple
from typing import Any

import gradio as gr

from modules import errors

KEY, QUOTED, PLAIN = r"\w[\w \-/]+", r'"(?:[^"\\]|\\.)+"', r"[^,]*"
RE_PARAM = re.compile(rf"\s*({KEY}):\s*({QUOTED}|{PLAIN})(?:,|$)")
RE_SIZE = re.compile(r"(\d+)x(\d+)")
DEFAULTS = {"Schedule type": "Automatic", "Hires resize-1": 0, "Hires resize-2": 0}
"""What an infotext leaves out when it has these values."""

paste_fields: dict[str, dict] = {}


PasteField = namedtuple("PasteField", ["component", "target", "api"], defaults=(None,))
"""What a text sets: its name in the infotext or a function of all parameters; `api`: the field of a request."""


def quote(text: Any) -> Any:
    """As JSON if it holds a comma, colon or line break; else unchanged."""
    return json.dumps(text, ensure_ascii=False) if any(c in str(text) for c in ",\n:") else text


def unquote(text: str) -> str:
    """The reverse of `quote`; text that is not valid JSON stays as it is."""
    try:
        return json.loads(text) if text[:1] == text[-1:] == '"' else text
    except ValueError:
        return text


def parse_generation_parameters(x: str) -> dict[str, Any]:
    """Parameters by name, as text; a size `WxH` gives two, `name-1` and `name-2`."""
    *lines, last = x.strip().split("\n")
    if len(RE_PARAM.findall(last)) < 3:
        lines, last = [*lines, last], ""
    prompt, _, negative = "\n".join(map(str.strip, lines)).partition("Negative prompt:")
    res: dict[str, Any] = {}
    for key, value in RE_PARAM.findall(last):
        if value == "":  # an empty value is dropped
            continue
        value = unquote(value)
        size = RE_SIZE.fullmatch(value)
        res |= {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value}
    return {**DEFAULTS, **res, "Prompt": prompt.strip(), "Negative prompt": negative.strip()}


def paste_values(fields: list, text: str) -> list:
    """What each field's component becomes when `text` is pasted: cast to the type of the component's own value."""
    params = parse_generation_parameters(text)

    def pasted(component, key):
        try:
            value, kind = key(params) if callable(key) else params.get(key), type(component.value)
            if value is None:
                return gr.update()
            if kind is bool and value == "False":
                return gr.update(value=False)
            return gr.update(value=float(value) if kind is int else kind(value))
        except Exception:
            errors.report(f"pasting with {key} failed", exc_info=True)
            return gr.update()

    return [pasted(component, key) for component, key, _ in fields]
