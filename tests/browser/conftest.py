"""The browser of these tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 300_000
"""Milliseconds that the page is waited for: only a page on which nothing happens any more is given up."""

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A running Chromium, a `playwright.sync_api.Browser`; without one the test skips."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("no Chromium here: install it to test the page (on Debian: apt-get install chromium)")
    playwright.expect.set_options(timeout=PATIENCE)
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=executable, args=FLAGS, timeout=PATIENCE)
        yield running
        running.close()


@pytest.fixture(scope="session")
def profile(browser: Any) -> Iterator[Any]:
    """What pages share, a `playwright.sync_api.BrowserContext`: the files of gradio are loaded and compiled once."""
    with browser.new_context() as opened:
        yield opened


@pytest.fixture
def tab(profile: Any) -> Iterator[Any]:
    """A new page in it, a `playwright.sync_api.Page`; a script that fails there fails the test."""
    opened = profile.new_page()
    opened.set_viewport_size({"width": 1200, "height": 1400})
    opened.set_default_timeout(PATIENCE)
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    yield opened
    opened.close()
    assert failures == []
