"""Talks to a running WebUI over HTTP, and knows how talking to one can go wrong."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PLAN = "/hidiffusion/v1/plan"
MEMORY = "/sdapi/v1/memory"

SHORT = 60.0
"""Seconds that any answer but a picture may take."""

SETTLING = 10.0
"""Seconds that a starting WebUI is left alone once it takes connections. A1111 adds its middleware after that, and a
request that comes before it makes the start fail ("Cannot add middleware after an application has started")."""

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a WebUI is near: never through a proxy


class Refusal(Exception):
    """The WebUI answered, with an error.

    Attributes:
        status: The HTTP status.
        kind: Status and kind of error alone, which hold nothing of the machine.
    """

    def __init__(self, status: int, body: str):
        self.status = status
        try:
            told = json.loads(body)
            told = told if isinstance(told, dict) else {}
        except ValueError:
            told = {}
        error, reason = told.get("error"), told.get("errors") or told.get("detail") or body.strip()
        self.kind = f"HTTP {status}" + (f", {error}" if isinstance(error, str) and error.isidentifier() else "")
        super().__init__(f"{self.kind}: {str(reason)[:500]}")


class Gone(Exception):
    """The connection was refused or broke: the WebUI is not there, or went away."""


class TooLate(Exception):
    """No answer within the time."""


class Host:
    """A running WebUI.

    Args:
        url: Its address.
        auth: What it was started with as --api-auth, "user:password"; empty if nothing.
    """

    def __init__(self, url: str, auth: str = ""):
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if auth:
            self._headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON at `path`.

        Raises:
            Refusal, Gone, TooLate: as they say.
        """
        return self._call(f"{path}?{urllib.parse.urlencode(query)}" if query else path, None, SHORT)

    def post(self, path: str, payload: Mapping[str, Any], seconds: float = SHORT) -> Any:
        """The JSON answer to `payload`, waited for that long.

        Raises:
            Refusal, Gone, TooLate: as they say.
        """
        return self._call(path, json.dumps(payload).encode(), seconds)

    def told(self, path: str) -> Any:
        """The JSON at `path`, or None where this WebUI does not tell it."""
        try:
            return self.get(path)
        except (Refusal, TooLate):
            return None

    def interrupt(self) -> None:
        """Asks it to drop the picture in the making, if it can still be asked."""
        with suppress(Refusal, Gone, TooLate):
            self.post("/sdapi/v1/interrupt", {})

    def plan_once_back(self, seconds: float) -> dict[str, Any] | None:
        """Waits at most so long for it to answer as a WebUI with this extension does; its plan of any picture."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            listening = self._listens()
            time.sleep(SETTLING)
            if listening:
                with suppress(Refusal, Gone, TooLate):
                    return self.get(PLAN)
        return None

    def _listens(self) -> bool:
        """Whether something takes connections at the address; nothing is asked."""
        at = urllib.parse.urlsplit(self.url)
        try:
            socket.create_connection((at.hostname, at.port or (443 if at.scheme == "https" else 80)), SHORT).close()
        except OSError:
            return False
        return True

    def _call(self, path: str, data: bytes | None, seconds: float) -> Any:
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            with _opener.open(request, timeout=seconds) as response:
                return _parsed(response.status, response.read())
        except urllib.error.HTTPError as error:
            raise Refusal(error.code, error.read().decode(errors="replace")) from None
        except TimeoutError:
            raise TooLate from None
        except urllib.error.URLError as error:
            raise TooLate if isinstance(error.reason, TimeoutError) else Gone(str(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise Gone(str(error)) from None


def _parsed(status: int, body: bytes) -> Any:
    try:
        return json.loads(body or b"null")
    except ValueError:
        raise Refusal(status, "what came is no JSON, so this is no WebUI's API") from None


class MemoryWatch:
    """While entered, asks twice a second how much of the graphics card the WebUI's PyTorch has reserved.

    Attributes:
        highest: The most that was seen, in bytes; None if the WebUI does not tell.
    """

    EVERY = 0.5

    def __init__(self, host: Host):
        self.highest: int | None = None
        self._host, self._over = host, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)

    def _watch(self) -> None:
        over = False
        while not over:
            try:
                now = self._host.told(MEMORY)["cuda"]["reserved"]["current"]
            except (Gone, KeyError, TypeError):
                return
            self.highest = max(self.highest or 0, int(now))
            over = self._over.wait(self.EVERY)
