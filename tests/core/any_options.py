"""Any allowed settings, for tests by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from hidiffusion_ext.core import Options
from hidiffusion_ext.core.options import SETTINGS, Choice, Setting


def values(setting: Setting) -> st.SearchStrategy[Any]:
    """Every value that a setting allows."""
    kind = type(setting.default)
    if issubclass(kind, Choice):
        return st.sampled_from(kind)
    if kind is bool:
        return st.booleans()
    number = st.integers if kind is int else st.floats
    return number(setting.minimum, setting.maximum)


options = st.builds(Options, **{name: values(setting) for name, setting in SETTINGS.items()})
