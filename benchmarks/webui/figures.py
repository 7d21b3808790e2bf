"""The figures: one row per arm and size."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .arms import ARMS
from .comparison import Comparison, Size
from .facts import GIB, NOT_TOLD
from .store import REFUSED, Answer, Store

HEADINGS = (
    "arm",
    "pictures",
    "seconds per picture",
    "as fast as direct",
    "the plan's promise",
    "measured",
    "GPU memory",
    "what was done",
)

NONE = "–"


@dataclass(frozen=True)
class Row:
    """An arm at a size.

    Attributes:
        arm, size: Which.
        asked, there: Requests, and how many of them have their pictures.
        counted: How many of those have a time that counts.
        seconds: Per picture, the median; None if no time counts.
        faster: How many times as fast as direct: the median over the requests in which both count; None if none.
        promise: What the plan says, in words; empty with the extension off.
        kept: As `faster`, against the same job with the extension off, which the promise is about.
        memory: The most that was reserved of the graphics card, in bytes; None if the host does not tell.
        done: What the extension did, as the infotexts say, and how often.
        missing: Why pictures are missing, and how often.
    """

    arm: str
    size: Size
    asked: int
    there: int
    counted: int
    seconds: float | None
    faster: float | None
    promise: str
    kept: float | None
    memory: int | None
    done: Mapping[str, int]
    missing: Mapping[str, int]

    def cells(self) -> list[str]:
        """The row in words, under `HEADINGS`."""
        plain = ARMS[self.arm].plain
        return [
            self.arm,
            str(self.there) if self.there == self.asked else f"{self.there} of {self.asked}",
            f"{self.seconds:.2f} (n {self.counted})" if self.seconds is not None else NONE,
            _times(self.faster),
            (self.promise + f" as {plain}" * self.promise.endswith(("as fast", "as long"))) if self.promise else NONE,
            _times(self.kept) if self.promise else NONE,
            (f"{self.memory / GIB:.2f} GiB" if self.memory is not None else NOT_TOLD) if self.there else NONE,
            "; ".join([*_counts("", self.done, self.asked), *_counts("missing: ", self.missing, 0)]) or NONE,
        ]


def rows(comparison: Comparison, store: Store) -> list[Row]:
    """One row per size and arm, in the order of the comparison."""
    answers = {(one.size, one.arm, one.prompt, one.seed): store.answer(one) for one in comparison.questions}
    asked = comparison.asked
    made: list[Row] = []
    for size in asked.sizes:
        by_arm = {
            arm: [answers[size, arm, number, seed] for seed in asked.seeds for number in range(len(asked.prompts))]
            for arm in asked.arms
        }
        for arm, of_arm in by_arm.items():
            there = [answer for answer in of_arm if answer and not answer.error]
            seconds = [answer.seconds / asked.batch for answer in there if answer.counted]
            memory = [answer.memory for answer in there if answer.memory is not None]
            promise = comparison.promise(arm, size)
            made.append(
                Row(
                    arm,
                    size,
                    len(of_arm),
                    len(there),
                    len(seconds),
                    statistics.median(seconds) if seconds else None,
                    _ratio(by_arm.get("direct"), of_arm),
                    promise.mark if promise else "",
                    _ratio(by_arm.get(ARMS[arm].plain), of_arm),
                    max(memory, default=None),
                    Counter(done(answer) for answer in there) if promise else {},
                    Counter(_why_missing(answer) for answer in of_arm if not answer or answer.error),
                )
            )
    return made


def done(answer: Answer) -> str:
    """What the extension did for a picture, by its infotext."""
    told = [
        f"{prefix}{answer.done[key]}"
        for key, prefix in (
            ("HiDiffusion", ""),
            ("HiDiffusion hires", "hires pass: "),
            (REFUSED, "refused: "),
        )
        if key in answer.done
    ]
    return "; ".join(told) or "nothing"


def _why_missing(answer: Answer | None) -> str:
    return answer.error_kind if answer else "not asked yet"


def _ratio(base: list[Answer | None] | None, other: list[Answer | None]) -> float | None:
    """The median of base seconds over the other's, where both count."""
    pairs = [
        one.seconds / two.seconds
        for one, two in zip(base or [], other)
        if one and two and one.counted and two.counted and not one.error and not two.error
    ]
    return statistics.median(pairs) if pairs else None


def _times(factor: float | None) -> str:
    return NONE if factor is None else f"{factor:.2f} times"


def _counts(prefix: str, counted: Mapping[str, int], all_of: int) -> Iterable[str]:
    """Each text, with how often it was said unless always."""
    return [prefix + text + f" ({count})" * (count != all_of) for text, count in counted.items()]
