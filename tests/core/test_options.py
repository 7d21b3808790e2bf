"""Options are checked with one sentence, and go to plain values and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from any_options import options
from hypothesis import given
from hypothesis import strategies as st

from hidiffusion_ext.core import Method, OptionError, Options, Passes, Preset
from hidiffusion_ext.core.options import SETTINGS, is_off, plain


def test_the_defaults_are_allowed_and_off() -> None:
    assert Options.from_mapping({}) == Options.from_args(()) == Options()
    assert not Options().enabled


def test_every_option_has_a_label_and_a_help_in_sentences() -> None:
    for name, setting in SETTINGS.items():
        assert setting.name == name
        assert setting.label
        assert setting.help.endswith(".")


@given(options)
def test_plain_values_make_the_same_options(value: Options) -> None:
    plain = json.loads(json.dumps(value.changed()))
    assert Options.from_mapping({"preset": value.preset.value, **plain}) == value
    assert Options.from_args([getattr(value, name) for name in SETTINGS]) == value


def test_choices_are_found_in_any_case() -> None:
    assert Options.from_mapping({"preset": "auto", "passes": "HIRES"}) == Options(passes=Passes.HIRES)


def test_a_whole_number_may_come_as_a_float() -> None:
    value = Options.from_mapping({"native_size": 768.0}).native_size
    assert value == 768
    assert isinstance(value, int)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"t3": 1}, ["'t3'", "t1", "t2", "preset"]),
        ({"enabled": 1}, ["enabled", "1", "true or false"]),
        ({"enabled": None}, ["enabled = null is", "true or false"]),
        ({"preset": "8x"}, ["preset", "'8x'", "Auto", "Turbo"]),
        ({"preset": 2}, ["preset", "2", "Auto"]),
        ({"t1": 1.5}, ["t1", "1.5", "0 to 1"]),
        ({"t1": True}, ["t1 = true is", "0 to 1"]),
        ({"t1": [None, {"a": False}]}, ["t1 = [null, {'a': false}] is"]),
        ({"t1": "0.5"}, ["t1", "'0.5'", "a number"]),
        ({"t1": float("nan")}, ["t1", "nan", "0 to 1"]),
        ({"t2": float("inf")}, ["t2", "inf", "0 to 1"]),
        ({"native_size": 10**30}, ["native_size", "0 to 4096"]),
        ({"native_size": 10**400}, ["native_size", "0 to 4096"]),
        ({"t1": -(10**400)}, ["t1", "0 to 1"]),
        ({"native_size": float("nan")}, ["native_size", "nan"]),
        ({"t1": nested(5000)}, ["t1", "[[", "0 to 1"]),
        ({"native_size": 512.5}, ["native_size", "512.5", "whole number"]),
        ({"native_size": [1] * 1000}, ["native_size", "...", "whole number"]),
    ],
)
def test_a_wrong_value_is_refused_by_name_value_and_what_is_allowed(values: dict, words: list[str]) -> None:
    with pytest.raises(OptionError) as refused:
        Options.from_mapping(values)
    for word in words:
        assert word in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("no", [False, None, 0, 0.0, ""])
def test_whatever_says_no_is_off_beside_anything(no: object) -> None:
    assert is_off([])
    for args in ([no], [no, *[None] * 13], [no, 7, 7], [{"enabled": no}], [{"enabled": no, "t1": 7}]):
        assert is_off(args), args


@pytest.mark.parametrize("args", [[True], [1], ["false"], [{}], [{"t1": 7}], [{"enable": True}], [{"enabled": 1}]])
def test_what_asks_for_something_or_may_have_meant_to_is_looked_at(args: list[Any]) -> None:
    assert not is_off(args)


def test_too_many_arguments_are_refused() -> None:
    for first in (False, {}):
        with pytest.raises(OptionError, match=f"{len(SETTINGS) + 1} arguments"):
            Options.from_args([first] + [False] * len(SETTINGS))


def test_a_mapping_goes_before_the_positional_arguments_behind_it() -> None:
    behind = ["ScaleCrafter", False, True, False, True, "2x", 0.4]
    assert Options.from_args([{"enabled": True, "rau_net": True}, *behind]) == Options(
        enabled=True, method=Method.SCALECRAFTER, preset=Preset.X2, t1=0.4
    )
    assert Options.from_args([{"preset": "4x"}, *behind]).preset is Preset.X4
    with pytest.raises(OptionError, match="method = 7"):
        Options.from_args([{"method": "ScaleCrafter"}, 7])


@given(options)
def test_text_means_what_was_written(value: Options) -> None:
    for name, setting in SETTINGS.items():
        assert setting.checked(setting.parse(str(plain(getattr(value, name))))) == getattr(value, name)


@pytest.mark.parametrize(("name", "text"), [("enabled", "yes"), ("t1", "a lot"), ("t1", ""), ("native_size", "1e999")])
def test_text_that_means_nothing_is_refused(name: str, text: str) -> None:
    with pytest.raises(OptionError, match=name):
        SETTINGS[name].checked(SETTINGS[name].parse(text))


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.floats() | st.text() | st.lists(st.integers())))
def test_anything_else_is_refused_with_a_sentence_and_nothing_else(values: dict) -> None:
    try:
        Options.from_mapping(values)
    except OptionError as refused:
        assert str(refused)
