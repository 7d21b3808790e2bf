"""Asks a WebUI what has not been answered yet, and goes on when something goes wrong."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image
from tqdm import tqdm

from .comparison import Comparison, Question, Size
from .host import Gone, Host, MemoryWatch, Refusal, TooLate
from .store import REFUSED, Answer, Store

TRIES = 2
"""How often a picture is asked for when the WebUI goes away while making it."""


class Stopped(Exception):
    """No further picture can be had; the message says why."""


class NoPicture(Exception):
    """An answer came, but without the pictures that were asked for; the message says what is wrong."""


class Runner:
    """Asks one host.

    Args:
        host: Where to ask.
        comparison: What to ask.
        store: Where answers are kept.
        patience: Seconds that a request may take.
        wait: Seconds that the WebUI may stay away.
    """

    def __init__(self, host: Host, comparison: Comparison, store: Store, patience: float, wait: float):
        self._host, self._comparison, self._store = host, comparison, store
        self._patience, self._wait = patience, wait
        self._warm: set[tuple[str, Size]] = set()

    def run(self) -> None:
        """Asks everything that has no pictures yet, in order.

        Raises:
            Stopped: if the WebUI went away and did not come back, or came back with another checkpoint.
            KeyboardInterrupt: if the user ends it; the picture in the making is dropped.
        """
        questions = self._comparison.questions
        todo = [question for question in questions if not self._store.is_done(question)]
        with tqdm(total=len(questions), initial=len(questions) - len(todo), unit="request") as bar, ticking(bar):
            for question in todo:
                bar.set_description(f"{question.arm}, {question.size}")
                answer, pictures = self._ask(question)
                self._store.keep(question, answer, pictures)
                if answer.error:
                    bar.write(f"{question.arm}, {question.size}, prompt {question.prompt + 1}: {answer.error}")
                bar.update()

    def _ask(self, question: Question) -> tuple[Answer, list[bytes]]:
        """The answer to one question, an error among them, and its pictures."""
        for _ in range(TRIES):
            try:
                return self._made(question)
            except Gone:
                self._wait_for_it()
            except TooLate:
                self._host.interrupt()
                kind = f"no answer within {self._patience:g} s"
                return Answer(error=f"There was {kind}.", error_kind=kind), []
            except Refusal as error:
                return Answer(error=str(error), error_kind=error.kind), []
            except NoPicture as error:
                return Answer(error=f"{error}.", error_kind=str(error)), []
            except KeyboardInterrupt:
                self._host.interrupt()
                raise
        kind = "the WebUI went away while making it"
        return Answer(error=f"{kind.capitalize()}, {TRIES} times.", error_kind=kind), []

    def _made(self, question: Question) -> tuple[Answer, list[bytes]]:
        """The answer to one question, if it has the pictures."""
        kind = question.arm, question.size
        with MemoryWatch(self._host) as memory:
            started = time.perf_counter()
            told = self._host.post("/sdapi/v1/txt2img", question.payload, self._patience)
            seconds = time.perf_counter() - started
        try:
            info = json.loads(told["info"])
            first = info.get("index_of_first_image", 0)  # before it there may be a grid
            pictures = [base64.b64decode(text) for text in told["images"][first:]][: question.payload["batch_size"]]
            sizes = [Image.open(io.BytesIO(encoded)).size for encoded in pictures]
            infotext, model, extra = info["infotexts"][first], info["sd_model_name"], info["extra_generation_params"]
        except (ValueError, KeyError, IndexError, TypeError, OSError):
            raise NoPicture("the answer is not that of a WebUI, or holds no picture") from None
        if len(pictures) < question.payload["batch_size"]:
            raise NoPicture(f"{len(pictures)} of {question.payload['batch_size']} pictures came back")
        if model not in self._comparison.checkpoint:
            raise NoPicture("it was made with another checkpoint than the others")
        for width, height in sizes:
            if Size(width, height) != question.size:
                raise NoPicture(f"it came back at {width}x{height} instead of {question.size}")
        done = {key: str(text) for key, text in extra.items() if key.startswith("HiDiffusion")}
        counted = kind in self._warm and REFUSED not in done
        self._warm.add(kind)
        version = str(info.get("version") or "")
        return Answer(seconds, counted, memory.highest, (), infotext, done, version), pictures

    def _wait_for_it(self) -> None:
        """Waits for a WebUI that went away; what it had warm is cold then.

        Raises:
            Stopped: if it stays away, or comes back with another checkpoint.
        """
        self._warm.clear()
        tqdm.write(f"The WebUI does not answer; waiting up to {self._wait:g} s for it to come back.")
        plan = self._host.plan_once_back(self._wait)
        if plan is None:
            raise Stopped(f"The WebUI at {self._host.url} went away and did not come back within {self._wait:g} s.")
        if plan["model"] not in ("", self._comparison.checkpoint):
            raise Stopped(
                f"The WebUI came back with {plan['model']}; what is compared is {self._comparison.checkpoint}."
            )


@contextmanager
def ticking(bar: Any) -> Iterator[None]:
    """On a terminal, keeps the bar's clock going while a picture is made, which may take minutes."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1):
            bar.refresh()

    if sys.stderr.isatty():
        threading.Thread(target=tick, daemon=True).start()
    try:
        yield
    finally:
        over.set()
