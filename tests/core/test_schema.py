"""The JSON schema of the API allows what `Options` allows, and the checked-in copy is the current one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core import OptionError, Options
from hidiffusion_ext.core.options import SETTINGS, Choice
from hidiffusion_ext.core.schema import api_schema

CHECKED_IN = Path(__file__).resolve().parents[2] / "docs" / "api.schema.json"
NAMES = [
    choice.value
    for setting in SETTINGS.values()
    if isinstance(setting.default, Choice)
    for choice in type(setting.default)
]
NUMBERS = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.floats(-0.5, 1.5) | st.integers(-1, 5000)
)
VALUES = st.none() | st.booleans() | NUMBERS | st.sampled_from([*NAMES, "", "8x"]) | st.lists(st.integers())
MAPPINGS = st.dictionaries(st.sampled_from([*SETTINGS, "strength"]), VALUES, max_size=3)

VALIDATOR = jsonschema.Draft202012Validator(api_schema())


def test_the_checked_in_schema_is_current() -> None:
    """If not: python -m hidiffusion_ext.core.schema > docs/api.schema.json"""
    assert json.loads(CHECKED_IN.read_text()) == api_schema()
    jsonschema.Draft202012Validator.check_schema(api_schema())


@given(
    st.lists(VALUES, max_size=len(SETTINGS) + 1) | st.tuples(MAPPINGS).map(list) | st.tuples(MAPPINGS, VALUES).map(list)
)
def test_the_schema_allows_exactly_what_is_accepted(args: list[Any]) -> None:
    try:
        Options.from_args(args)
        accepted = True
    except OptionError:
        accepted = False
    assert VALIDATOR.is_valid(args) == accepted


@pytest.mark.parametrize("args", [[], [True], [{"enabled": True, "t1": 0.5}], [{"native_size": 768.0}]])
def test_what_the_schema_allows(args: list[Any]) -> None:
    VALIDATOR.validate(args)
