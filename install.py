"""What a WebUI runs at each start: installs the one package the extension needs beside the WebUI's own, if missing."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("einops") is None:
    import launch  # type: ignore[import-not-found]  # the WebUI's own, there when it runs this file

    launch.run_pip("install einops", "einops for HiDiffusion")
