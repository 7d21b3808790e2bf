"""The page to look at side by side: one file beside the pictures that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from .arms import ARMS
from .comparison import Comparison, Question, Size
from .figures import HEADINGS, Row, done
from .store import Store
from .table import WHAT_COUNTS, machine

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(comparison: Comparison, rows: Sequence[Row], store: Store, file: Path) -> None:
    """Writes the page: the figures, then a row of pictures per prompt and seed with a column per arm."""
    body = [_facts(machine(comparison, store))]
    for size in comparison.asked.sizes:
        body += [f"<h2>{size}</h2>", _figures([row for row in rows if row.size == size])]
        body += [f"<p class=advice>{escape(text)}</p>" for text in _advice(comparison, size)]
        body.append(_pictures(comparison, store, size))
    body.append(f"<p class=note>{escape(WHAT_COUNTS)}</p>")
    file.write_text(TEMPLATE.read_text(encoding="utf-8").replace("<!-- content -->", "\n".join(body)), encoding="utf-8")


def _facts(told: dict[str, str]) -> str:
    lines = (f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in told.items())
    return f"<dl>{''.join(lines)}</dl>"


def _figures(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in HEADINGS)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row.cells()) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class=wide><table class=figures><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _advice(comparison: Comparison, size: Size) -> list[str]:
    """What the plans advise at a size, each sentence once."""
    promises = (comparison.promise(arm, size) for arm in comparison.asked.arms)
    return list(dict.fromkeys(promise.advice for promise in promises if promise and promise.advice))


def _pictures(comparison: Comparison, store: Store, size: Size) -> str:
    asked = comparison.asked
    by_place = {(one.prompt, one.seed, one.arm): one for one in comparison.questions if one.size == size}
    head = "".join(f"<th>{escape(arm)}</th>" for arm in asked.arms)
    body: list[str] = []
    for number, prompt in enumerate(asked.prompts):
        for seed in asked.seeds:
            for one in range(asked.batch):
                label = f"<th><b>{number + 1}.</b> {escape(prompt)}<span>seed {seed + one}</span></th>"
                cells = (_cell(store, by_place[number, seed, arm], one) for arm in asked.arms)
                body.append(f"<tr>{label}{''.join(cells)}</tr>")
    return f"<table class=pictures><thead><tr><th>prompt</th>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(store: Store, question: Question, number: int) -> str:
    """A picture with its time and what was done for it, or why there is none."""
    answer, arm = store.answer(question), f'data-arm="{escape(question.arm)}"'
    if answer is None:
        return f"<td {arm} class=missing>not asked yet</td>"
    if answer.error:
        return f"<td {arm} class=missing>{escape(answer.error)}</td>"
    name = answer.pictures[number]
    preview = store.preview(name).relative_to(store.folder).as_posix()
    picture = store.picture(name).relative_to(store.folder).as_posix()
    said = done(answer) if ARMS[question.arm].settings is not None else ""
    refused = " class=refused" if said.startswith("refused") else ""
    seconds = f"{answer.seconds:.2f} s" if answer.counted else f"({answer.seconds:.2f} s)"
    return (
        f'<td {arm}{refused}><a href="{quote(picture)}" title="{escape(answer.infotext)}">'
        f'<img loading=lazy src="{quote(preview)}" alt="{escape(question.arm)}"></a>'
        f"<small>{seconds} <span>{escape(said)}</span></small></td>"
    )
