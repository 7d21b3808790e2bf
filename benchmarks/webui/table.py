"""The table to show to others: figures and machine in Markdown, nothing personal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .arms import ARMS, HIRES_STRENGTH
from .comparison import Comparison
from .facts import NOT_TOLD
from .figures import HEADINGS, Row
from .prompts import SHIPPED, read
from .store import Store

PATH_LIKE = re.compile(r"(?:\b[A-Za-z]:)?(?:[\\/][\w.@~+-]+){2,}")
"""What looks like the path of a file."""

WHAT_COUNTS = (
    "Seconds: from request to answer, so with the autoencoder and the transfer, divided by the pictures of a request; "
    "the median. Not counted: the first request of each arm at a size, in each run anew, which also loads and "
    "prepares, and pictures for which HiDiffusion refused something. n: requests that count. As fast as direct, and "
    "measured (of the promise): medians over the prompts and seeds for which both count. GPU memory: the most that "
    "the WebUI's PyTorch had reserved, asked twice a second."
)


def markdown(comparison: Comparison, rows: Sequence[Row], store: Store, *, show_prompts: bool) -> str:
    """The whole table.

    Args:
        comparison, rows, store: What was asked, and what came of it.
        show_prompts: Whether the prompts are listed, too.
    """
    asked, parts = comparison.asked, ["# HiDiffusion: a comparison"]
    parts.append("\n".join(f"- {name}: {without_paths(text)}" for name, text in machine(comparison, store).items()))
    for size in asked.sizes:
        lines = [HEADINGS, ["---"] * len(HEADINGS), *(row.cells() for row in rows if row.size == size)]
        parts += [f"## {size}", "\n".join(map(_line, lines))]
    parts.append(WHAT_COUNTS)
    if show_prompts:
        parts.append("\n".join(f"{number}. {prompt}" for number, prompt in enumerate(asked.prompts, 1)))
    return "\n\n".join(parts) + "\n"


def machine(comparison: Comparison, store: Store) -> dict[str, str]:
    """What the pictures were made with and on, by name."""
    asked = comparison.asked
    answers = [answer for answer in map(store.answer, comparison.questions) if answer]
    own = "" if list(asked.prompts) == read(SHIPPED) else " of the user's own"
    said = [
        f"prompts: {len(asked.prompts)}{own}, seeds: {len(asked.seeds)}, batch size {asked.batch}",
        f"{asked.steps} steps of {asked.sampler}, {asked.scheduler}, CFG scale {asked.cfg:g}",
    ]
    if any(ARMS[name].hires for name in asked.arms):
        said.append(f"hires fix from the native size at strength {HIRES_STRENGTH:g}, enlarged by {asked.upscaler}")
    return {
        **comparison.facts,
        "WebUI": _versions(answer.version for answer in answers),
        "HiDiffusion": _versions(answer.done.get("HiDiffusion version", "") for answer in answers),
        "asked": "; ".join(said),
    }


def without_paths(text: str) -> str:
    """A text with `(path)` in the place of each path in it."""
    return PATH_LIKE.sub("(path)", text)


def _line(cells: Sequence[str]) -> str:
    clean = (without_paths(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(clean)} |"


def _versions(told: Iterable[str]) -> str:
    return ", ".join(sorted(set(told) - {""})) or NOT_TOLD
