"""Infotext: quoting, parsing, and pasting it back into components."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from modules import errors, paths, shared

sys.modules["modules.generation_parameters_copypaste"] = sys.modules[__name__]  # its old name

KEY, QUOTED, PLAIN = r"\w[\w \-/]+", r'"(?:[^"\\]|\\.)+"', r"[^,]*"
RE_PARAM = re.compile(rf"\s*({KEY}):\s*({QUOTED}|{PLAIN})(?:,|$)")
RE_SIZE = re.compile(r"(\d+)x(\d+)")
DEFAULTS = {"Clip skip": "1", "Schedule type": "Automatic", "Hires resize-1": 0, "Hires resize-2": 0}
"""What an infotext leaves out when it has these values."""

paste_fields: dict[str, dict] = {}


class PasteField(tuple):
    """(component, name in the infotext or function of all parameters); `api`: the field of an API request."""

    def __new__(cls, component, target, *, api=None):
        return super().__new__(cls, (component, target))

    def __init__(self, component, target, *, api=None):
        self.component, self.api = component, api
        self.label = target if isinstance(target, str) else None
        self.function = target if callable(target) else None


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
    texts: dict[str, list[str]] = {"Prompt": [], "Negative prompt": []}
    part = "Prompt"
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            part, line = "Negative prompt", line[len("Negative prompt:") :].strip()
        texts[part].append(line)
    res: dict[str, Any] = {}
    for key, value in RE_PARAM.findall(last):
        if value == "":  # an empty value is dropped
            continue
        value = unquote(value)
        size = RE_SIZE.fullmatch(value)
        res |= {f"{key}-1": size[1], f"{key}-2": size[2]} if size else {key: value}
    res |= {key: "\n".join(lines) for key, lines in texts.items()}
    return DEFAULTS | res


def add_paste_fields(tabname: str, fields: list) -> None:
    fields[:] = [field if isinstance(field, PasteField) else PasteField(*field) for field in fields]
    paste_fields[tabname] = {"fields": fields}


def get_override_settings(params: dict[str, Any]) -> dict[str, Any]:
    """The settings that parameters belong to and differ from."""
    found = {name: params[info.infotext] for name, info in shared.opts.data_labels.items() if info.infotext in params}
    cast = {name: shared.opts.cast_value(name, value) for name, value in found.items()}
    return {name: value for name, value in cast.items() if value != getattr(shared.opts, name)}


def paste_values(fields: list, text: str) -> list:
    """What each field's component becomes when `text` (empty: the last job's) is pasted."""
    last_job = Path(paths.data_path, "params.txt")
    if not text and last_job.exists():
        text = last_job.read_text(encoding="utf8")
    params = parse_generation_parameters(text)
    return [_pasted(component, key, params) for component, key in fields]


def _pasted(component, key: str | Callable, params: dict[str, Any]):
    """A gradio update for one component; text is cast to the type of the component's own value."""
    value = params.get(key) if isinstance(key, str) else None
    if callable(key):
        try:
            value = key(params)
        except Exception:
            errors.report(f"pasting with {key} failed", exc_info=True)
    if value is None:
        return gr.update()
    if isinstance(value, type(gr.update())):
        return value
    try:
        kind = type(component.value)
        if kind is bool and value == "False":
            return gr.update(value=False)
        return gr.update(value=float(value) if kind is int else kind(value))
    except Exception:
        return gr.update()


def connect_paste(button, fields: list, prompt) -> None:
    parts = [component for component, _ in fields]
    button.click(lambda text: paste_values(fields, text), inputs=[prompt], outputs=parts, show_progress=False)
