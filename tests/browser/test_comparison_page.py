"""The comparison's page, opened as a file in a real browser without a network."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.webui.comparison import Asked, Comparison, Promise, Question, Size
from benchmarks.webui.figures import rows
from benchmarks.webui.page import write_page
from benchmarks.webui.store import Answer, Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.browser

SIZE = Size(320, 160)
ARMS = ["direct", "HiDiffusion", "hires"]
PROMPTS = ["a red fox", "a lighthouse"]


@pytest.fixture
def page(tab: Any, tmp_path: Path) -> Iterator[Any]:
    """The page of two prompts and three arms, one picture missing; it loads files alone."""
    questions = [
        Question(arm, SIZE, number, 1, {}, f"{number}-{arm}") for number in range(len(PROMPTS)) for arm in ARMS
    ]
    asked = Asked(PROMPTS, "", [1], [SIZE], ARMS, 20, "Euler", "Automatic", 7.0, 1, "Lanczos", 0)
    promise = Promise("up to 1.7 times as fast", "")
    comparison = Comparison(asked, "SD1.5 (x)", {"card": "none"}, questions, {f"HiDiffusion {SIZE}": promise})
    store = Store(tmp_path)
    for place, question in enumerate(questions):
        if place == 1:
            store.keep(question, Answer(error="HTTP 500: out of memory", error_kind="HTTP 500"))
            continue
        out = io.BytesIO()
        Image.new("RGB", (SIZE.width, SIZE.height), (40 * place, 90, 160)).save(out, "PNG")
        store.keep(question, Answer(seconds=2.0, counted=place > 3, infotext="text"), [out.getvalue()])
    write_page(comparison, rows(comparison, store), store, tmp_path / "index.html")
    tab.set_viewport_size({"width": 1200, "height": 800})
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((tmp_path / "index.html").as_uri())
    yield tab
    assert asked
    assert all(url.startswith("file:") for url in asked)


def shown(page: Any) -> tuple[str, str]:
    """The names of the files on the left and on the right."""
    return tuple(Path(page.locator(f"#{name}").get_attribute("src")).name for name in ("over", "under"))  # type: ignore[return-value]


def test_what_is_on_it(page: Any) -> None:
    assert page.locator(".pictures img").count() == 5
    assert page.locator(".missing").inner_text() == "HTTP 500: out of memory"
    cells = page.locator(".pictures small").all_inner_texts()
    assert [cell.split(" s")[0] for cell in cells] == ["(2.00", "(2.00", "(2.00", "2.00", "2.00"]
    assert page.evaluate("[...document.images].slice(0, 5).every((image) => image.naturalWidth > 0)")


def test_two_pictures_under_a_slider(page: Any) -> None:
    page.locator(".pictures a").nth(3).click()  # second row, HiDiffusion
    assert shown(page) == ("1-direct-0.png", "1-HiDiffusion-0.png")
    page.keyboard.press("ArrowRight")
    assert shown(page) == ("1-direct-0.png", "1-hires-0.png")
    page.keyboard.press("ArrowUp")  # the row with the missing picture
    assert shown(page) == ("0-direct-0.png", "0-hires-0.png")
    assert page.locator("#left option").all_inner_texts() == ["direct", "hires"]
    page.select_option("#left", "hires")
    assert page.locator("#over").is_hidden()  # the same on both sides
    page.select_option("#left", "direct")
    frame = page.locator("#frame").bounding_box()
    assert frame["width"] == 2 * frame["height"] == 1200  # fitted into the window, both pictures alike
    assert page.locator("#over").bounding_box() == page.locator("#under").bounding_box()
    page.mouse.click(frame["x"] + frame["width"] / 4, frame["y"] + 100)
    edge = page.locator("#edge").bounding_box()
    assert abs(edge["x"] + 1 - frame["x"] - frame["width"] / 4) < 12  # the slider's thumb has a width


def test_full_size_and_back(page: Any) -> None:
    page.locator(".pictures a").first.click()
    page.keyboard.press("f")
    assert page.locator("#under").bounding_box()["width"] == SIZE.width
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()


def test_in_a_narrow_window(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert all(image.bounding_box()["width"] > 140 for image in page.locator(".pictures img").all())
    way = "getComputedStyle(document.querySelector('.pictures td.missing'), '::before').content"
    assert page.evaluate(way) == '"HiDiffusion"'
    page.locator(".pictures a").first.click()
    frame, stage = (page.locator(name).bounding_box() for name in ("#frame", "#stage"))
    assert frame["width"] == 2 * frame["height"] == 400
    assert page.locator("#bar").bounding_box()["y"] == 0  # all of it is seen
    assert stage["y"] + stage["height"] == 800
