"""What the documents name is there: files, folders, tests by name; and every picture of docs/ is shown somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
]
PLACES = (
    "",
    "tests/",
    "hidiffusion_ext/",
    "hidiffusion_ext/core/",
    "hidiffusion_ext/hosts/",
    "hidiffusion_ext/webui/",
    "benchmarks/",
)
"""Where a name in a document may start from, beside the document's own folder."""

ELSEWHERE = {"out", "WORK", ".venv", "modules"}
"""Folders that come to be by running something, and the hosts' own."""

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
CODE = re.compile(r"`([\w./-]+/[\w.-]+\.(?:py|md|json|yml|toml|js|css|safetensors|jpg|png)|test_\w+\.py)`")


def exists(name: str, document: Path) -> bool:
    if "/" not in name:
        return any(ROOT.joinpath("tests").rglob(name))
    return (document.parent / name).exists() or any((ROOT / place / name).exists() for place in PLACES)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    missing = [link for link in links if not (document.parent / link).exists()]
    missing += [
        name for name in CODE.findall(text) if name.split("/")[0] not in ELSEWHERE and not exists(name, document)
    ]
    assert missing == []


def test_every_picture_of_the_documents_is_shown() -> None:
    shown = {
        (document.parent / link).resolve()
        for document in DOCUMENTS
        for link in LINK.findall(document.read_text(encoding="utf-8"))
        if "://" not in link
    }
    pictures = [path for kind in ("png", "jpg", "svg") for path in (ROOT / "docs").rglob(f"*.{kind}")]
    assert [str(path.relative_to(ROOT)) for path in pictures if path.resolve() not in shown] == []
