"""What the extension's code may not do on a user's machine: run text, read foreign objects, write files, call out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("hidiffusion_ext/**/*.py"), *ROOT.glob("scripts/*.py"), ROOT / "install.py"])
SCRIPTS = sorted(ROOT.glob("javascript/*.js"))

IMPORTS = {
    "__future__", "bisect", "collections", "contextlib", "copy", "dataclasses", "enum", "functools", "html",
    "importlib", "inspect", "itertools", "json", "logging", "math", "operator", "re", "reprlib", "secrets", "sys",
    "traceback", "types", "typing", "weakref",
    "torch", "einops", "gradio", "fastapi",
    "modules", "launch", "hidiffusion_ext",  # the host's, and its own
}  # fmt: skip
"""Nothing among them that opens files or connections by itself."""

CALLS = {"eval", "exec", "compile", "__import__", "open", "input", "breakpoint", "globals"}
METHODS = {
    "load", "save", "write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "system",
    "popen", "urlopen", "import_module", "exec_module", "load_url", "load_state_dict_from_url",
}  # fmt: skip
"""`torch.load` and `torch.save` among them."""


def tree_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_known_modules_are_imported(path: Path) -> None:
    names: list[str] = []
    for node in tree_of(path):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.append(node.module or "")
    assert {name.partition(".")[0] for name in names} <= IMPORTS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_run_loaded_written_or_sent(path: Path) -> None:
    called = [node.func for node in tree_of(path) if isinstance(node, ast.Call)]
    assert not CALLS & {func.id for func in called if isinstance(func, ast.Name)}
    assert not METHODS & {func.attr for func in called if isinstance(func, ast.Attribute)}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_page_gets_text_and_asks_its_own_server_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", text)


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\nimport torch\ntorch.load('x')\neval('1')\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_only_known_modules_are_imported(bad)
    with pytest.raises(AssertionError):
        test_nothing_is_run_loaded_written_or_sent(bad)
    bad.write_text("torch.load('x')\n", encoding="utf-8")
    with pytest.raises(AssertionError):
        test_nothing_is_run_loaded_written_or_sent(bad)
