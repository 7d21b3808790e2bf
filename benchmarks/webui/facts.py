"""What a WebUI tells of the machine it runs on, without anything personal: names and versions, never a path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .host import MEMORY, Host

SYSTEM_INFO = "/internal/sysinfo"
FLAGS = "/sdapi/v1/cmd-flags"
OPTIONS = "/sdapi/v1/options"

TELLING_FLAG = re.compile(
    r"xformers|attention|sdp|flash|sage|triton|compile|half|vram|precision|bf16|fp16|fp32|fp8|cpu|directml|ipex|channelslast"
)
"""The names of the WebUI's flags that bear on speed and memory."""

TELLING_PACKAGE = re.compile(r"(xformers|flash[_-]attn|sageattention|triton)==[\w.+-]+", re.IGNORECASE)

NOT_TOLD = "not told"
GIB = 2**30


def facts(host: Host) -> dict[str, str]:
    """Card, memory, driver, PyTorch, attention and system by name, each `NOT_TOLD` where the host is silent.

    Raises:
        Gone: if the host is not there.
    """
    info = _mapping(host.told(SYSTEM_INFO))
    torch = _mapping(info.get("Torch env info"))
    return {
        "card": _card(torch, _mapping(host.told(MEMORY))),
        "driver": _text(torch.get("nvidia_driver_version")),
        "torch": _text(torch.get("torch_version")),
        "attention and memory": _attention(host, info),
        "system": _text(torch.get("os"), info.get("Platform")),
    }


def _card(torch: dict[str, Any], memory: dict[str, Any]) -> str:
    names = torch.get("nvidia_gpu_models")
    lines = names if isinstance(names, list) else [names]
    cards = [re.sub(r"\s*\(UUID.*?\)", "", line).strip() for line in lines if isinstance(line, str) and line.strip()]
    cuda = _mapping(memory.get("cuda"))
    total = _mapping(cuda.get("system")).get("total")
    if isinstance(total, (int, float)):
        return f"{', '.join(cards) or 'a graphics card that it does not name'}, {total / GIB:.1f} GiB"
    return ", ".join(cards) or ("none: the WebUI computes on the processor, or on a card it tells nothing of")


def _attention(host: Host, info: dict[str, Any]) -> str:
    chosen = _mapping(host.told(OPTIONS)).get("cross_attention_optimization")
    found = [f"setting {chosen}"] if isinstance(chosen, str) and chosen != "Automatic" else []
    found += sorted(set(_flags(_mapping(host.told(FLAGS)), info.get("Commandline"))))
    packages = info.get("Packages")
    found += [one for one in packages if isinstance(one, str) and TELLING_PACKAGE.fullmatch(one)] if packages else []
    return ", ".join(found) or NOT_TOLD


def _flags(by_name: dict[str, Any], command_line: Any) -> Iterator[str]:
    """The names of the telling flags that are set; values are left out, as they may be anything."""
    given = [name for name, value in by_name.items() if value is True or value == "True"]
    if not by_name and isinstance(command_line, list):
        given = [word for word in command_line if isinstance(word, str) and word.startswith("--")]
    for name in given:
        flag = "--" + name.lstrip("-").partition("=")[0].replace("_", "-")
        if TELLING_FLAG.search(flag):
            yield flag


def _mapping(told: Any) -> dict[str, Any]:
    return told if isinstance(told, dict) else {}


def _text(*told: Any) -> str:
    """The first that is a text that says something."""
    return next((one for one in told if isinstance(one, str) and one.strip() and one not in ("N/A", "None")), NOT_TOLD)
