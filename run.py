"""Three commands for a fresh machine with nothing but Python 3.10 to 3.14:

    python run.py demo    samples a picture with and without HiDiffusion, no WebUI needed
    python run.py test    runs every check that needs no WebUI and no GPU; from Python 3.13 on those of the core alone,
                          as the WebUI's page is made with packages that are not made for it
    python run.py test --device cuda
                          tries a graphics card (or mps, on a Mac) in ten minutes, and makes a table for an issue

Each makes `.venv` and installs what it needs the first time, and starts at once after that.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path
from subprocess import STDOUT, Popen
from tempfile import TemporaryFile

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

TORCH = "torch==2.13.0"

HAS_PAGE = sys.version_info < (3, 13)
"""Whether this Python can have the packages that a WebUI's page is made with."""

DEMO = ["demo.txt", "demo-without-dependencies.txt"]
PAGE = ["test-webui.txt", "test-webui-without-dependencies.txt", "test-webui-gradio4.txt"]
REQUIREMENTS = {"demo": DEMO, "test": [*DEMO, "test.txt", *(PAGE if HAS_PAGE else [])]}
"""Files in `requirements/`, in the order they are installed. PyTorch comes first: nothing else may choose its build."""

PIP_OPTIONS = {
    "demo-without-dependencies.txt": ["--no-deps"],
    "test-webui-without-dependencies.txt": ["--no-deps"],
    "test-webui-gradio4.txt": ["--upgrade", "--target", str(VENV / "gradio4")],
}

CHECKS = [
    ("lint", ["ruff", "check", "."]),
    ("format", ["ruff", "format", "--check", "."]),
    # Files in their order: the other order leaves the long ones with few tests for the end, one after the other.
    ("tests", ["pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]),
]

TYPES = ["pyright"]
"""It keeps one core busy for a minute, and so runs beside the tests."""


def main(arguments: list[str]) -> int:
    command, *rest = arguments or ["--help"]
    if command not in REQUIREMENTS:
        print(__doc__)
        return 0 if command in ("-h", "--help") else 2
    if not (3, 10) <= sys.version_info[:2] <= (3, 14):
        print(f"Python 3.10 to 3.14 is needed; this is {sys.version.split()[0]}.")
        return 2
    set_up(command)
    return demo(rest) if command == "demo" else test(rest)


def set_up(command: str) -> None:
    """Makes the virtual environment and installs what the command needs, unless that has been done."""
    files = [ROOT / "requirements" / name for name in REQUIREMENTS[command]]
    wanted = hashlib.sha256(TORCH.encode() + b"".join(file.read_bytes() for file in files)).hexdigest()
    stamp = VENV / f"{command}.installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not PYTHON.exists():
        print(f"Making {VENV.relative_to(ROOT)} ...", flush=True)
        venv.create(VENV, with_pip=True)
    steps = [[TORCH], *([*PIP_OPTIONS.get(file.name, []), "-r", str(file)] for file in files)]
    for number, step in enumerate(steps, 1):
        print(f"Installing, part {number} of {len(steps)}: {Path(step[-1]).name} ...", flush=True)
        subprocess.run([PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *step], check=True)
    stamp.write_text(wanted)


def demo(arguments: list[str]) -> int:
    return run([str(PYTHON), str(ROOT / "tools" / "demo.py"), *arguments])


def test(arguments: list[str]) -> int:
    """Runs all checks, or only pytest with the given arguments; says at the end which failed.

    The tests' models are so small that a second thread only costs, on a busy machine fifteen times as much.
    """
    if arguments and arguments[0].startswith("--device"):
        checks = [("tests of the card", ["pytest", "tests/card", *arguments])]
    elif arguments:
        checks = [("tests", ["pytest", *arguments])]
    elif HAS_PAGE:
        checks = CHECKS
    else:
        print("From Python 3.13 on only the core is tested; Python 3.10, 3.11 and 3.12 test everything.")
        checks = [("tests of the core", ["pytest", "tests/core"])]
    failed: list[str] = []
    with TemporaryFile("w+", encoding="utf-8") as told:
        types = Popen([str(PYTHON), "-m", *TYPES], cwd=ROOT, stdout=told, stderr=STDOUT) if checks is CHECKS else None
        for name, command in checks:
            print(f"\n== {name}: {' '.join(command)}", flush=True)
            if run([str(PYTHON), "-m", *command], OMP_NUM_THREADS="1") != 0:
                failed.append(name)
        if types:
            if types.wait() != 0:
                failed.append("types")
            told.seek(0)
            print(f"\n== types: {' '.join(TYPES)}\n{told.read()}")
    print(f"\nFailed: {', '.join(failed)}" if failed else "\nEverything passed.")
    return 1 if failed else 0


def run(command: list[str], **variables: str) -> int:
    """Runs a program in the project's folder; waiting threads sleep instead of keeping a core busy."""
    own = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
