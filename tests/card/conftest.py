"""The tests of a graphics card: `python run.py test --device cuda` (or `mps`) ends with a table of what was found.

With `--device cpu` everything is as small as it can be; that still takes too long to be done among all other tests.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from card import DEVICES, Card, is_there

TABLE = Path("out/card.md")
CARD = pytest.StashKey[Card]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=DEVICES, help="test this device, in full, and make a table of it")


def asked_for(config: pytest.Config) -> str | None:
    """The device on the command line; the option is not known where these tests are only some of many."""
    return config.getoption("--device", None)


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Nothing is tested where no device is named."""
    return None if asked_for(config) else True


def pytest_configure(config: pytest.Config) -> None:
    device = asked_for(config)
    if device is None:
        return
    if not is_there(device):
        raise pytest.UsageError(
            f"PyTorch {torch.__version__} finds no {device} device on this machine; on Windows, put the build for your "
            "card from pytorch.org into .venv first."
        )
    config.stash[CARD] = Card(device)


@pytest.fixture(scope="session")
def card(pytestconfig: pytest.Config) -> Card:
    return pytestconfig.stash[CARD]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """What fails without having been noted has a row, too."""
    rows = item.config.stash[CARD].rows
    if call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception) and not (rows and rows[-1].kept is False):
        item.config.stash[CARD].note(item.name, "", call.excinfo.exconly().splitlines()[0][:200], kept=False)
    return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not asked_for(config):
        return
    table = config.stash[CARD].table()
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table, encoding="utf-8")
    terminalreporter.section(f"for an issue, also in {TABLE}")
    terminalreporter.write(table)
