"""Make `k_diffusion.sampling` and `.external` importable without what the rest of that package wants.

The package's `__init__` imports training code (torchvision, accelerate, wandb, clip ...). The samplers themselves
need only torch, scipy, torchdiffeq, torchsde and tqdm.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types


def install() -> None:
    """Register a bare `k_diffusion` package and, where missing, an empty `torchvision.transforms`. Idempotent."""
    if "k_diffusion" not in sys.modules:
        spec = importlib.util.find_spec("k_diffusion")
        package = types.ModuleType("k_diffusion")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec  # find_spec wants one
        sys.modules["k_diffusion"] = package
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]
    import k_diffusion.external
    import k_diffusion.sampling  # noqa: F401
