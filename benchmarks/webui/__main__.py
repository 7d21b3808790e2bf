"""Has a running WebUI make the same pictures in several ways and compares them; docs/compare.md explains it."""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from . import prompts
from .arms import ARMS
from .comparison import CELL, Asked, CannotBegin, Comparison, Size, settle
from .facts import facts
from .figures import rows
from .host import Gone, Host, Refusal, TooLate
from .page import write_page
from .running import Runner, Stopped
from .sheets import write_sheets
from .store import Store
from .table import markdown

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "python -m benchmarks.webui"
GOES_ON = "The same command goes on from here."


def main(words: Sequence[str] | None = None) -> int:
    """Parses the arguments, asks, reports; 0 if every picture is there, 1 if some are missing, 2 if it cannot begin."""
    arguments = _parser().parse_args(words)
    store, kept = Store(arguments.out), arguments.out / "comparison.json"
    if arguments.html:
        try:
            comparison = Comparison.load(kept)
        except (OSError, ValueError, KeyError, TypeError):
            return _cannot(f"{arguments.out} holds no comparison, or one of another version.")
        return _report(comparison, store, arguments, why="", look=True)
    try:
        asked = _asked(arguments)
        host = Host(arguments.url, arguments.auth)
        comparison = settle(host, asked, facts(host))
        comparison.save(kept)
    except KeyboardInterrupt:
        return _cannot("Stopped.")
    except Gone:
        return _cannot(f"No WebUI answers at {arguments.url}. Is it running, and started with --api?")
    except TooLate:
        return _cannot(f"The WebUI at {arguments.url} does not answer.")
    except (Refusal, CannotBegin, OSError, ValueError) as error:
        return _cannot(str(error))
    why = ""
    print(_begins(comparison, store), flush=True)
    try:
        Runner(host, comparison, store, arguments.patience, arguments.wait).run()
    except Stopped as error:
        why = str(error)
    except KeyboardInterrupt:
        why = "Stopped."
    return _report(comparison, store, arguments, why=why, look=False)


def _asked(arguments: argparse.Namespace) -> Asked:
    return Asked(
        prompts=prompts.read(arguments.prompts),
        negative=arguments.negative,
        seeds=list(dict.fromkeys(arguments.seeds)),
        sizes=arguments.sizes,
        arms=[name for name in ARMS if name in arguments.arms],
        steps=arguments.steps,
        sampler=arguments.sampler,
        scheduler=arguments.scheduler,
        cfg=arguments.cfg,
        batch=arguments.batch,
        upscaler=arguments.upscaler,
        native_size=arguments.native_size,
    )


def _begins(comparison: Comparison, store: Store) -> str:
    """What will be made, and what to do if something else was meant."""
    asked, questions = comparison.asked, comparison.questions
    there = sum(map(store.is_done, questions))
    parts = (
        _counted(len(asked.prompts), "prompt"),
        _counted(len(asked.arms), "way"),
        _counted(len(asked.seeds) * asked.batch, "seed"),
        " and ".join(map(str, asked.sizes)),
    )
    made = f"{_counted(len(questions) * asked.batch, 'picture')}: {', '.join(parts)}."
    lines = [
        f"{comparison.checkpoint}, made for sides of {comparison.facts['native side']}; if not, add --native-size.",
        made + f" {there * asked.batch} are there already." * (there > 0),
    ]
    if there < len(questions):
        lines.append(f"How long it takes is shown after the first one. Ctrl+C stops. {GOES_ON}")
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _report(comparison: Comparison, store: Store, arguments: argparse.Namespace, *, why: str, look: bool) -> int:
    """Writes table, sheets and page of what is there, and says where they are and why something is missing."""
    figures, page = rows(comparison, store), store.folder / "index.html"
    table = markdown(comparison, figures, store, show_prompts=arguments.show_prompts)
    (store.folder / "table.md").write_text(table, encoding="utf-8")
    write_sheets(comparison, store, show_prompts=arguments.show_prompts)
    write_page(comparison, figures, store, page)
    print(
        f"\n{table}\nTable: {store.folder / 'table.md'}\nPage:  {page}\nSheets of pictures: {store.folder / 'sheets'}"
    )
    answers = [store.answer(question) for question in comparison.questions]
    failed, to_make = sum(bool(answer and answer.error) for answer in answers), answers.count(None)
    if failed or to_make:
        said = [
            why,
            f"{failed} of {len(answers)} requests failed; the page says why." * (failed > 0),
            f"{to_make} of {len(answers)} are still to be made." * (to_make > 0),
            GOES_ON,
        ]
        print(" ".join(filter(None, said)))
    if look:
        webbrowser.open(page.resolve().as_uri())
    return 1 if failed or to_make else 0


def _cannot(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _count(text: str) -> int:
    if _whole(text) == 0:
        raise argparse.ArgumentTypeError("it has to be 1 at least")
    return int(text)


def _url(text: str) -> str:
    address = text if "://" in text else f"http://{text}"
    if "@" in address:
        raise argparse.ArgumentTypeError("give user and password with --auth")
    return address


def _size(text: str) -> Size:
    """1024x768, or 1024 for a square."""
    width, _, height = text.lower().partition("x")
    try:
        size = Size(int(width), int(height or width))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; 1024 and 1024x768 are") from None
    if any(side < CELL or side % CELL for side in (size.width, size.height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: sides are multiples of {CELL} pixels")
    return size


def _side(text: str) -> int:
    if (side := _whole(text)) % CELL:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: sides are multiples of {CELL} pixels")
    return side


def _arm(text: str) -> str:
    for name in ARMS:
        if name.casefold() == text.replace(" ", "-").casefold():
            return name
    raise argparse.ArgumentTypeError(f"there is no arm {text!r}; there are {', '.join(ARMS)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    what = parser.add_argument_group("what is compared")
    what.add_argument("--arms", nargs="+", type=_arm, default=list(ARMS), metavar="ARM", help=f"of {', '.join(ARMS)}")
    what.add_argument(
        "--prompts", type=Path, default=prompts.SHIPPED, metavar="FILE", help="one per line (default: 24 that ship)"
    )
    what.add_argument("--negative", default="", metavar="TEXT", help="the negative prompt of all")
    what.add_argument("--seeds", nargs="+", type=_whole, default=[1], metavar="SEED", help="(default: 1)")
    what.add_argument(
        "--sizes", nargs="+", type=_size, default=[], metavar="SIZE", help="1024x768 (default: twice the native side)"
    )
    what.add_argument("--steps", type=_count, default=20, metavar="N", help="(default: %(default)s)")
    what.add_argument("--sampler", default="DPM++ 2M", metavar="NAME", help="(default: %(default)s)")
    what.add_argument("--scheduler", default="Automatic", metavar="NAME", help="(default: %(default)s)")
    what.add_argument("--cfg", type=float, default=7.0, metavar="SCALE", help="(default: %(default)g)")
    what.add_argument("--batch", type=_count, default=1, metavar="N", help="pictures per request, of as many seeds")
    what.add_argument("--upscaler", default="Lanczos", metavar="NAME", help="of hires fix (default: %(default)s)")
    what.add_argument(
        "--native-size", type=_side, default=0, metavar="PIXELS", help="side the model was made for (default: found)"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--url", type=_url, default="http://127.0.0.1:7860", help="of the WebUI (default: %(default)s)")
    how.add_argument("--auth", default="", metavar="USER:PASSWORD", help="what the WebUI has as --api-auth")
    how.add_argument(
        "--out", type=Path, default=ROOT / "out" / "webui", metavar="FOLDER", help="of the results (default: out/webui)"
    )
    how.add_argument(
        "--patience", type=float, default=1800, metavar="SECONDS", help="that a picture may take (default: %(default)g)"
    )
    how.add_argument(
        "--wait",
        type=float,
        default=300,
        metavar="SECONDS",
        help="that a WebUI that went away may take (default: %(default)g)",
    )
    how.add_argument("--html", action="store_true", help="ask nothing: report what is there, and open the page")
    how.add_argument("--show-prompts", action="store_true", help="in the table and on the sheets, for others to see")
    return parser


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a console may lack a prompt's letters
    sys.exit(main())
