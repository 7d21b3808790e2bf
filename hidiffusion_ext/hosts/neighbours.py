"""Other extensions that already do the same job, or something that needs feature maps or self-attentions as they are.

Each is recognised by what it leaves on the modules (A1111) or asks the host for (the Forge family), wherever it comes
from, so none of them is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..core import UNetMap
from ..core.plan import Part
from ..core.planning import finest_attentions
from .model import is_controlled

DEEP_SHRINK = "PatchModelAddDownscale."
"""Deep Shrink's class in the Forge family (Kohya HRFix), under the name it has in ComfyUI, where it comes from."""

DEEP_SHRINK_A1111 = "KohyaHiresFix."
"""The class of the extension for A1111 (sd-webui-kohya-hiresfix), which puts its blocks in place at the first step."""

CONTROL_LLLITE = ".control_net_lllite_patch"
"""The Forge family's class of what ControlLLLite adds before attentions, under its name in ComfyUI."""


def conflicts(unet: nn.Module, unet_map: UNetMap, transformer_options: Mapping[str, Any]) -> dict[Part, str]:
    """What has to be left out of the coming pass, and why, in a few words for the user.

    Args:
        unet: The UNet; `unet_map` are its sites.
        unet_map: See there.
        transformer_options: The Forge family's: functions that change features between blocks (Deep Shrink), functions
            that change what goes into every attention (token merging, ControlLLLite), and functions that take the place
            of single ones (StyleAlign, reference), by (part, block, ...).
    """
    found: dict[Part, str] = {}
    if is_controlled(unet):
        found[Part.RELAY] = "a ControlNet is at work, whose picture has one size"
    if _shrinks_features(transformer_options):
        found |= dict.fromkeys((Part.RAU_NET, Part.REDILATION, Part.RELAY), "Deep Shrink (Kohya HRFix) is on")
    elif _adds_to_tokens(unet, transformer_options):
        found |= dict.fromkeys((Part.RAU_NET, Part.RELAY), LLLITE_IN_USE)
    elif _runs_beside_downsamplers(unet, unet_map):
        found[Part.RAU_NET] = "a LoRA is computed beside a downsampler (setting: old method for Lora)"
    if reason := _windows_conflict(unet, unet_map, transformer_options):
        found[Part.MSW_MSA] = reason
    return found


def _shrinks_features(transformer_options: Mapping[str, Any]) -> bool:
    """Deep Shrink, by the functions it gives the host: to be called in the UNet (Forge) or at each step (A1111)."""
    patches = transformer_options.get("patches", {})
    functions = [*patches.get("input_block_patch", ()), *patches.get("input_block_patch_after_skip", ())]
    callbacks = getattr(sys.modules.get("modules.script_callbacks"), "callback_map", {})
    functions += [entry.callback for entry in callbacks.get("callbacks_cfg_denoiser", ())]
    names = (getattr(function, "__qualname__", "") for function in functions)
    return any(name.startswith((DEEP_SHRINK, DEEP_SHRINK_A1111)) for name in names)


def _adds_to_tokens(unet: nn.Module, transformer_options: Mapping[str, Any]) -> bool:
    """ControlLLLite, in whichever attentions: its picture of a feature map is made once per pass, in one size."""
    patches = transformer_options.get("patches", {})
    functions = [*patches.get("attn1_patch", ()), *patches.get("attn2_patch", ())]
    if any(type(function).__qualname__.endswith(CONTROL_LLLITE) for function in functions):
        return True
    return any(getattr(module, "lllite_list", None) for module in unet.modules())


def _runs_beside_downsamplers(unet: nn.Module, unet_map: UNetMap) -> bool:
    """A LoRA in A1111's old way, by its setting `lora_functional`: it has a convolution of its own beside each of the
    host's, with the stride that one had when the LoRA was loaded, and their outputs are added.
    """
    if not getattr(getattr(sys.modules.get("modules.shared"), "opts", None), "lora_functional", False):
        return False
    downsamplers = [unet.get_submodule(block.down) for block in unet_map.inputs if block.down]
    layers = {getattr(downsampler, "network_layer_name", None) for downsampler in downsamplers}
    loaded = getattr(sys.modules.get("networks"), "loaded_networks", ())
    return any(layers & set(getattr(network, "modules", ())) for network in loaded)


def _windows_conflict(unet: nn.Module, unet_map: UNetMap, transformer_options: Mapping[str, Any]) -> str:
    if transformer_options.get("patches", {}).get("attn1_patch"):
        return "another extension changes self-attention"
    replaced = {key[:2] for key in transformer_options.get("patches_replace", {}).get("attn1", {})}
    for site in finest_attentions(unet_map):
        if ("output" if site.output else "input", site.block) in replaced:
            return "another extension replaces self-attention"
        scale = 2 ** unet_map.level(unet_map.partner(site.block) if site.output else site.block)
        attention = unet.get_submodule(site.attention)
        block = unet.get_submodule(site.attention.rpartition(".")[0])
        for reason, is_there in IN_SELF_ATTENTION.items():
            if is_there(Place(unet, block, attention, scale)):
                return reason
    return ""


class Place(NamedTuple):
    """A self-attention (attn1), its transformer block, their UNet, and the cells per feature and side there."""

    unet: Any
    block: Any
    attention: Any
    scale: int


def _merges_tokens(place: Place) -> bool:
    """tomesd: every block gets another class, knows the settings, and merges if it is not coarser than they allow.

    When it is taken off the class goes and the settings stay.
    """
    if type(place.block).__name__ != "ToMeBlock":
        return False
    settings = place.block._tome_info["args"]
    return settings["ratio"] > 0 and settings["merge_attn"] and place.scale <= settings["max_downsample"]


def _tiles(place: Place) -> bool:
    """A1111's built-in HyperTile: stays on the module for ever once used, and says there whether it is on."""
    return getattr(getattr(place.attention, "__webui_hypertile_params", None), "enabled", False)


def _adds_to_projections(place: Place) -> bool:
    """ControlLLLite: adds a picture of the whole feature map to queries, keys or values."""
    projections = (getattr(place.attention, name, None) for name in ("to_q", "to_k", "to_v"))
    return any(getattr(projection, "lllite_list", None) for projection in projections)


def _looks_at_other_pictures(place: Place) -> bool:
    """sd-webui-controlnet's reference and style-align modes: self-attention also over another picture's tokens.

    It keeps the block's own forward beside the one it puts in its place. The latter stays until its next job without
    these modes; between jobs it attends as the own one does.
    """
    own = getattr(place.block, "_original_inner_forward_cn_hijack", None)
    return own is not None and place.block._forward != own and is_controlled(place.unet)


LLLITE_IN_USE = "a ControlLLLite model is in use"

IN_SELF_ATTENTION: dict[str, Callable[[Place], bool]] = {
    "token merging is on": _merges_tokens,
    "HyperTile is on": _tiles,
    LLLITE_IN_USE: _adds_to_projections,
    "ControlNet's reference mode is in use": _looks_at_other_pictures,
}
"""What the user is told -> how it is recognised in one of the places that would get windows."""
