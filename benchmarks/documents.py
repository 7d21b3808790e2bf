"""Figures in the project's documents: everything between two marks is the benchmark's, the text around them stays."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end of figures -->"


def start(command: str) -> str:
    """The mark before the figures that `command` writes."""
    return f"<!-- figures: written by {command} -->"


def insert_figures(document: Path, figures: str, command: str) -> None:
    """Puts the command's `figures` between its marks in the document.

    Raises:
        ValueError: if the document lacks the marks.
    """
    text = document.read_text(encoding="utf-8")
    before, mark, rest = text.partition(start(command))
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{document} has no place for the figures: it needs the lines {start(command)!r} and {END!r}.")
    document.write_text(f"{before}{mark}\n\n{figures}\n\n{END}{after}", encoding="utf-8")
