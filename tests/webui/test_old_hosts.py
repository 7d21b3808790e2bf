"""A host that lacks what is needed makes its pictures as always, and the infotext says why nothing was done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hidiffusion_ext.webui.script import TOO_OLD, HiDiffusionScript
from modules import scripts


@pytest.mark.parametrize(("arguments", "said"), [((True,), {"HiDiffusion refused": TOO_OLD}), ((False,), {}), ((), {})])
def test_a_webui_without_the_hook_of_a_pass(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], said: dict[str, str]
) -> None:
    monkeypatch.delattr(scripts.Script, "process_before_every_sampling")
    comments: list[str] = []
    p = SimpleNamespace(extra_generation_params={}, comment=comments.append)
    HiDiffusionScript().process_batch(p, *arguments)
    assert p.extra_generation_params == said
    assert len(comments) == len(said)
