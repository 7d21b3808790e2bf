"""The arguments of an API payload as a JSON schema, made from `SETTINGS`.

python -m hidiffusion_ext.core.schema > docs/api.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from .options import SETTINGS, Choice, Setting, plain


def api_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12) of `alwayson_scripts.HiDiffusion.args` in a payload."""
    values = {name: _value(setting) for name, setting in SETTINGS.items()}
    first, *rest = ({"$ref": f"#/$defs/{name}"} for name in values)
    by_name = {"type": "object", "properties": {name: {"$ref": f"#/$defs/{name}"} for name in values}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "HiDiffusion arguments",
        "description": "The list at alwayson_scripts.HiDiffusion.args in a payload for txt2img or img2img.",
        "type": "array",
        "prefixItems": [{"anyOf": [first, {"$ref": "#/$defs/by_name"}]}, *rest],
        "items": False,
        "$defs": {"by_name": {**by_name, "additionalProperties": False}, **values},
    }


def _value(setting: Setting) -> dict[str, Any]:
    about = {"title": setting.label, "description": setting.help, "default": plain(setting.default)}
    if isinstance(setting.default, Choice):
        return {**about, "enum": [choice.value for choice in type(setting.default)]}
    if isinstance(setting.default, bool):
        return {**about, "type": "boolean"}
    kind = "integer" if isinstance(setting.default, int) else "number"
    return {**about, "type": kind, "minimum": setting.minimum, "maximum": setting.maximum}


if __name__ == "__main__":
    print(json.dumps(api_schema(), indent=2))
