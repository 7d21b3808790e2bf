"""The extension's log: one line per sampling pass on the console, where A1111 shows no INFO messages of its own."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager

from .settings import console_is_on

logger = logging.getLogger("HiDiffusion")

if not logger.handlers:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.addFilter(lambda record: record.levelno > logging.INFO or console_is_on())
    logger.setLevel(logging.INFO)
    logger.propagate = False

NOT_YOURS = "an error that is not yours; please report it"


@contextmanager
def telling() -> Generator[None, None, None]:
    """Around what only tells about a job: a failure in it is in the log, and costs the job nothing."""
    try:
        yield
    except Exception as error:
        logger.error(NOT_YOURS, exc_info=error)
