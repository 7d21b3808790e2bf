"""Errors of scripts and callbacks are reported on stderr and kept in `reported`, for tests to look at."""

from __future__ import annotations

import sys
import traceback

reported: list[str] = []


def report(message: str, *, exc_info: bool = False) -> None:
    """Print `message`, with the current traceback when `exc_info`; never raises."""
    text = f"*** {message}" + (f"\n{traceback.format_exc()}" if exc_info else "")
    reported.append(text)
    print(text, file=sys.stderr)


def display(e: Exception, task: str, *, full_traceback: bool = False) -> None:
    """Report an exception that ended `task`."""
    report(f"{task}: {type(e).__name__}: {e}", exc_info=full_traceback)
