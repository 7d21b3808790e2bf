"""The UNet classes of real hosts, with small random weights: every method, even and odd sizes, ControlNet, exact undo.
And what their own sampling objects take a UNet's answers for.

FORGE_DIR, REFORGE_DIR, CLASSIC_DIR and NEO_DIR name checkouts of Forge, reForge, Forge Classic and Forge Neo. Their
modules need what those hosts need and have the same names, so run this file for one of them at a time, alone and in the
host's own Python:

    FORGE_DIR=/path/to/forge /path/to/forge/venv/bin/python -m pytest tests/core/test_host_unets.py
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from hidiffusion_ext.core import Family, Options, Run, Schedule, Situation, hidiffusion, make_plan, map_unet
from hidiffusion_ext.core.sizes import Sizing, feature_sizes
from hidiffusion_ext.hosts.model import find_model

STEPS = 10
TIMESTEPS = [999 - 999 * step / STEPS for step in range(STEPS)]
CONTEXT = 24
SIZES = [(32, 32), (40, 24), (33, 25), (25, 37)]
METHODS: list[dict[str, Any]] = [
    {"method": "HiDiffusion", "preset": "2x"},
    {"method": "HiDiffusion", "preset": "4x"},
    {"method": "HiDiffusion", "preset": "4x", "msw_msa": False},
    {"method": "ScaleCrafter", "preset": "2x"},
    {"method": "ScaleCrafter", "preset": "4x", "dispersion": True},
]


LINEAR = {"beta_schedule": "linear", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000}
BY_NAME = {  # Forge and Neo: one class that is told what is predicted
    name: ("backend.modules.k_prediction:Prediction", {"sigma_data": 1.0, "prediction_type": name, **LINEAR}, meaning)
    for name, meaning in (("epsilon", "noise"), ("v_prediction", "v"), ("const", "other"))
}
BY_CLASS = {  # reForge and Classic: a class of noise levels and one of what is predicted
    f"{levels} {predicted}": (f"ldm_patched.modules.model_sampling:{levels}+{predicted}", {}, meaning)
    for levels, predicted, meaning in (
        ("ModelSamplingDiscrete", "EPS", "noise"),
        ("ModelSamplingDiscrete", "V_PREDICTION", "v"),
        ("ModelSamplingDiscrete", "EDM", "other"),
        ("ModelSamplingContinuousEDM", "V_PREDICTION", "v"),
        ("ModelSamplingContinuousV", "V_PREDICTION", "v"),
        ("ModelSamplingDiscreteFlow", "CONST", "other"),
    )
}


class Host(NamedTuple):
    """Where a host keeps its UNet class.

    Attributes:
        variable: The environment variable that names a checkout.
        unet: The class, as module:name.
        arguments: What its constructor needs beyond what all hosts' do.
        samplings: Objects that it keeps beside its UNets: the class, or two, of which they are; its arguments; what
            answers are taken for.
        before: A function to call before the class is imported, as module:name.
        flags: What it is started with, to run on a CPU.
        packages: The folder with what it brings along.
    """

    variable: str
    unet: str
    arguments: dict[str, Any]
    samplings: dict[str, tuple[str, dict[str, Any], str]]
    before: str = ""
    flags: tuple[str, ...] = ("--always-cpu", "--attention-pytorch")
    packages: str = "packages_3rdparty"


HOSTS = {
    "Forge": Host("FORGE_DIR", "backend.nn.unet:IntegratedUNet2DConditionModel", {}, BY_NAME),
    "reForge": Host(
        "REFORGE_DIR",
        "ldm_patched.ldm.modules.diffusionmodules.openaimodel:UNetModel",
        {"image_size": 32},
        BY_CLASS,
        before="ldm_patched.modules.options:enable_args_parsing",
    ),
    "Forge Classic": Host(
        "CLASSIC_DIR",
        "ldm_patched.ldm.modules.diffusionmodules.openaimodel:UNetModel",
        {"image_size": 32},
        BY_CLASS,
        before="modules_forge.initialization:initialize_forge",
    ),
    "Forge Neo": Host(
        "NEO_DIR",
        "backend.nn.unet:IntegratedUNet2DConditionModel",
        {},
        BY_NAME,
        flags=("--cpu", "--use-pytorch-cross-attention"),
        packages="modules_forge/packages",
    ),
}
LAYOUTS: dict[Family, dict[str, Any]] = {
    Family.SD1: {"channel_mult": (1, 2, 2, 2), "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0]},
    Family.SD2: {
        "channel_mult": (1, 2, 2, 2),
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "use_linear_in_transformer": True,
    },
    Family.SDXL: {
        "channel_mult": (1, 2, 2),
        "transformer_depth": [0, 0, 2, 2, 3, 3],
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": 16,
    },
}


def load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> tuple[Host, type[nn.Module]]:
    """A host and its UNet class."""
    host = HOSTS[request.param]
    if host.variable not in os.environ:
        pytest.skip(f"set {host.variable} to a checkout of {request.param} to run this on its UNet")
    folder = Path(os.environ[host.variable]).resolve()
    sys.path[:0] = [str(folder), str(folder / host.packages)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["webui", *host.flags])
        try:
            if host.before:
                load(host.before)()
            return host, load(host.unet)
        except ModuleNotFoundError as error:
            pytest.skip(f"{request.param} needs {error.name}: run this in its own Python")


def test_what_its_sampling_objects_take_the_answers_for(host: tuple[Host, type[nn.Module]]) -> None:
    found = {}
    for name, (path, arguments, _) in host[0].samplings.items():
        module, classes = path.split(":")
        sampling = type(name, tuple(load(f"{module}:{one}") for one in classes.split("+")), {})(**arguments)
        model = SimpleNamespace(diffusion_model=nn.Module(), model_sampling=sampling)
        forge = SimpleNamespace(unet=SimpleNamespace(model=model))
        found[name] = find_model(SimpleNamespace(sd_model=SimpleNamespace(forge_objects=forge))).prediction
    assert found == {name: meaning for name, (_, _, meaning) in host[0].samplings.items()}


@pytest.fixture(scope="module", params=Family)
def unet(host: tuple[Host, type[nn.Module]], request: pytest.FixtureRequest) -> nn.Module:
    """A small one with outputs of order 1."""
    layout = LAYOUTS[request.param]
    depth = layout["transformer_depth"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = host[1](
            in_channels=4,
            model_channels=32,
            out_channels=4,
            num_res_blocks=2,
            num_heads=2,
            use_spatial_transformer=True,
            context_dim=CONTEXT,
            transformer_depth_middle=1,
            transformer_depth_output=[d for level in zip(depth[::2], depth[1::2]) for d in (*level, level[-1])],
            **{**layout, "transformer_depth": list(depth)},
            **host[0].arguments,
        )
        for name, parameter in unet.named_parameters():  # some hosts leave them as the memory was
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
            else:
                nn.init.constant_(parameter, float(name.endswith("weight")))
    unet.family = request.param
    return unet.eval().requires_grad_(False)


def call(unet: nn.Module, latent: tuple[int, int], step: int, control: Any = None) -> torch.Tensor:
    """A call as the host's model makes it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, *latent, generator=generator)
    more = {"y": torch.randn(2, 16, generator=generator)} if unet.family is Family.SDXL else {}
    timesteps = torch.full((2,), TIMESTEPS[step])
    context = torch.randn(2, 5, CONTEXT, generator=generator)
    with torch.inference_mode():
        return unet(x, timesteps, context=context, control=control, transformer_options={}, **more)


def snapshot(unet: nn.Module) -> list[Any]:
    """Types, attributes and hooks of all modules, and the identity and version of all tensors."""
    return [
        (
            name,
            type(module),
            {k: (type(v), tuple(v)) if isinstance(v, dict) else v for k, v in vars(module).items()},
            [(id(t), t._version) for t in (*module.parameters(recurse=False), *module.buffers(recurse=False))],
        )
        for name, module in unet.named_modules()
    ]


def run() -> Run:
    return Run(Schedule(TIMESTEPS))


def test_it_is_recognised(unet: nn.Module) -> None:
    unet_map = map_unet(unet)
    assert unet_map.family is unet.family
    assert unet_map.downs == ((3, 6) if unet.family is Family.SDXL else (3, 6, 9))
    assert len(unet_map.inputs) == (9 if unet.family is Family.SDXL else 12)


@pytest.mark.parametrize("options", METHODS, ids=lambda options: " ".join(map(str, options.values())))
@pytest.mark.parametrize("latent", SIZES, ids=str)
def test_every_method_at_every_size_and_exact_undo(
    unet: nn.Module, latent: tuple[int, int], options: dict[str, Any]
) -> None:
    plan = make_plan(Options.from_mapping({"native_size": 64, **options}), map_unet(unet), latent)
    before, expected = snapshot(unet), call(unet, latent, 0)
    assert expected.isfinite().all()
    with hidiffusion(unet, plan, run()):
        for step in (0, 3, STEPS - 1):
            patched = call(unet, latent, step)
            assert patched.shape == expected.shape
            assert patched.isfinite().all()
            assert torch.equal(patched, call(unet, latent, step))
            inactive = step == STEPS - 1 and not options.get("msw_msa", True)
            assert torch.equal(patched, call_without(unet, latent, step)) == inactive
    base_run = run()
    with hidiffusion(unet, plan, base_run), base_run.base_evaluation():
        assert call(unet, latent, 0).isfinite().all()
    assert snapshot(unet) == before
    assert torch.equal(call(unet, latent, 0), expected)


def call_without(unet: nn.Module, latent: tuple[int, int], step: int) -> torch.Tensor:
    """The unchanged UNet's result, asked for inside of an open context."""
    hooks = [(m, m._forward_pre_hooks, m._forward_hooks) for m in unet.modules()]
    for module, *_ in hooks:
        module._forward_pre_hooks, module._forward_hooks = {}, {}
    try:
        return call(unet, latent, step)
    finally:
        for module, pre_hooks, forward_hooks in hooks:
            module._forward_pre_hooks, module._forward_hooks = pre_hooks, forward_hooks


def test_an_error_leaves_nothing(unet: nn.Module) -> None:
    plan = make_plan(Options.from_mapping({"native_size": 64}), map_unet(unet), (32, 32))
    before, expected = snapshot(unet), call(unet, (32, 32), 0)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = unet.get_submodule("out.0").register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt), hidiffusion(unet, plan, run()):
        call(unet, (32, 32), 0)
    handle.remove()
    assert snapshot(unet) == before
    assert torch.equal(call(unet, (32, 32), 0), expected)


@pytest.mark.parametrize("latent", SIZES, ids=str)
@pytest.mark.parametrize("preset", ["2x", "4x"])
def test_controlnet_works_while_raunet_is_active(
    unet: nn.Module, latent: tuple[int, int], preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unet_map = map_unet(unet)
    plan = make_plan(
        Options.from_mapping({"native_size": 64, "preset": preset}), unet_map, latent, Situation(controlnet=True)
    )
    sizes = feature_sizes(unet_map, Sizing(latent)).skips
    channels: list[int] = []
    handles = [
        unet.get_submodule(block.layers[-1]).register_forward_hook(lambda m, a, out: channels.append(out.shape[1]))
        for block in unet_map.inputs
    ]
    call(unet, latent, 0)
    for handle in handles:
        handle.remove()
    made = [torch.randn(2, *shape) for shape in ((c, *size) for c, size in zip(channels, sizes))]

    def control(*names: str) -> dict[str, list[torch.Tensor]]:
        lists = {"input": made[::-1], "middle": made[-1:], "output": list(made)}
        return {name: own if name in names else [] for name, own in lists.items()}

    for step in (0, 2):
        with hidiffusion(unet, plan, run()):
            without = call(unet, latent, step)
            for name in ("input", "middle", "output"):
                given = control(name)
                assert not torch.equal(call(unet, latent, step, given), without)
                assert given == control(name)
    assert "could not be applied" not in capsys.readouterr().out
