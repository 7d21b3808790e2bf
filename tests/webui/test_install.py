"""install.py, which a WebUI runs at each start: it asks for einops where that is missing, and for nothing else."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

INSTALL = Path(__file__).resolve().parents[2] / "install.py"


@pytest.mark.parametrize(("there", "asked"), [(True, []), (False, ["install einops"])])
def test_einops_is_asked_for_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, there: bool, asked: list[str]
) -> None:
    commands: list[str] = []
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: find(name, *args) if there or name != "einops" else None
    )
    host = SimpleNamespace(run_pip=lambda command, description: commands.append(command))
    monkeypatch.setitem(sys.modules, "launch", host)
    runpy.run_path(str(INSTALL))
    assert commands == asked


def test_without_a_webui_it_does_nothing_where_einops_is_there() -> None:
    assert "launch" not in sys.modules
    runpy.run_path(str(INSTALL))
