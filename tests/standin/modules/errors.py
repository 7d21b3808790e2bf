"""Errors of scripts and callbacks are reported on stderr."""

from __future__ import annotations

import sys
import traceback


def report(message: str, *, exc_info: bool = False) -> None:
    """Print `message`, with the current traceback when `exc_info`; never raises."""
    print(f"*** {message}" + (f"\n{traceback.format_exc()}" if exc_info else ""), file=sys.stderr)
