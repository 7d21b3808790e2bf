"""Other extensions that already do the same job, or something that needs feature maps or self-attentions as they are.

Each is recognised by what it leaves on the modules (A1111) or asks the host for (the Forge family), wherever it comes
from, so none of them is imported. What is not recognised and fails is dealt with by `fallback`, and what merely has no
effect by what the hooks note; here is what would give wrong pictures, or work with less than everything switched off.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..core import Conflict, Need, UNetMap
from .model import is_controlled

DEEP_SHRINK = "PatchModelAddDownscale."
"""Deep Shrink's class in the Forge family (Kohya HRFix), under the name it has in ComfyUI, where it comes from."""

DEEP_SHRINK_A1111 = "KohyaHiresFix."
"""The class of the extension for A1111 (sd-webui-kohya-hiresfix), which puts its blocks in place at the first step."""

HYPERTILE = "__webui_hypertile_params"
"""Where A1111's built-in HyperTile keeps its settings on a self-attention."""

RESIZING = {"avg_pool2d", "adaptive_avg_pool2d", "max_pool2d", "interpolate", "common_upscale", "scale_samples"}
"""Functions that change the size of feature maps: PyTorch's, ComfyUI's, and what ports of HiDiffusion call theirs."""

CONTROL_LLLITE = ".control_net_lllite_patch"
"""The Forge family's class of what ControlLLLite adds before attentions, under its name in ComfyUI."""

LLLITE_IN_USE = "a ControlLLLite model is in use"
CONTROLNET_AT_WORK = "a ControlNet is at work, whose picture has one size"
DEEP_SHRINK_ON = "Deep Shrink (Kohya HRFix) is on"
RESIZES_FEATURES = "another extension resizes features, too"
MASKS_REGIONS = "an IP-Adapter has an effective region mask"
READS_THE_MIDDLE = "another extension reads self-attention in the middle block"
RUNS_BESIDE_DOWNSAMPLERS = "a LoRA is computed beside a downsampler (setting: old method for Lora)"
WORKS_IN_LAYERS = "another extension works in the UNet's layers"
PADS_IN_ITS_OWN_WAY = "another extension pads convolutions in its own way"
CHANGES_SELF_ATTENTION = "another extension changes self-attention"
REPLACES_SELF_ATTENTION = "another extension replaces self-attention"
OWN_SELF_ATTENTION = "another extension has put its own self-attention in place"
TOKENS_MERGED = "token merging is on"
HYPERTILE_ON = "HyperTile is on"
REFERENCE_IN_USE = "ControlNet's reference mode is in use"
"""Reasons, as the user is told them."""


def conflicts(unet: nn.Module, unet_map: UNetMap, transformer_options: Mapping[str, Any]) -> list[Conflict]:
    """What others hold in the coming pass, and why, in a few words for the user.

    Args:
        unet: The UNet; `unet_map` are its sites.
        unet_map: See there.
        transformer_options: The Forge family's: functions that change features between blocks (Deep Shrink), functions
            that change what goes into every attention (token merging, ControlLLLite), and functions that take the place
            of single ones (StyleAlign, reference), by (part, block, ...).
    """
    everything = Everything(unet, unet_map, transformer_options)
    found = [Conflict(reason, held) for reason, (held, is_there) in IN_FEATURES.items() if is_there(everything)]
    if reason := _windows_conflict(unet, unet_map, transformer_options):
        found.append(Conflict(reason, frozenset({Need.TOKENS})))
    return found


class Everything(NamedTuple):
    """What can be looked at before a pass: see `conflicts`."""

    unet: nn.Module
    unet_map: UNetMap
    transformer_options: Mapping[str, Any]

    def functions(self, *kinds: str) -> list[Any]:
        """What the host was given to be called in the UNet (the Forge family)."""
        patches = self.transformer_options.get("patches", {})
        return [function for kind in kinds for function in patches.get(kind, ())]


def _shrinks_features(everything: Everything) -> bool:
    """Deep Shrink, by the functions it gives the host: to be called in the UNet (Forge) or at each step (A1111)."""
    functions = everything.functions("input_block_patch", "input_block_patch_after_skip")
    callbacks = getattr(sys.modules.get("modules.script_callbacks"), "callback_map", {})
    functions += [entry.callback for entry in callbacks.get("callbacks_cfg_denoiser", ())]
    names = (getattr(function, "__qualname__", "") for function in functions)
    return any(name.startswith((DEEP_SHRINK, DEEP_SHRINK_A1111)) for name in names)


def _resizes_features(everything: Everything) -> bool:
    """Other ports of HiDiffusion on the Forge family: a function called after input blocks calls one that resizes."""
    functions = everything.functions("input_block_patch", "input_block_patch_after_skip")
    codes = (getattr(getattr(function, "__func__", function), "__code__", None) for function in functions)
    return any(RESIZING & {*code.co_names} for code in codes if code is not None)


def _works_in_layers(everything: Everything) -> bool:
    """Functions that are called between or in blocks (the Forge family: FreeU), hooks on layers, and forwards of others
    in them, which may count how often they are called.
    """
    kinds = ("input_block_patch", "input_block_patch_after_skip", "middle_patch", "output_block_patch")
    modifiers = (everything.transformer_options.get(name) for name in ("block_modifiers", "block_inner_modifiers"))
    if everything.functions(*kinds) or any(modifiers):
        return True
    layers = [everything.unet.get_submodule(name) for block in everything.unet_map.deep_blocks for name in block.layers]
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        return True
    inside = (module for layer in layers for module in layer.modules())
    known = (HYPERTILE, "lllite_list")  # which say themselves whether they are at work
    return any(_has_foreign_forward(module) for module in inside if not any(hasattr(module, name) for name in known))


def _has_foreign_forward(module: nn.Module) -> bool:
    """Whether a function that is no method of the module takes the place of its forward."""
    return "forward" in vars(module) and getattr(module.forward, "__self__", None) is not module


def _adds_to_tokens(everything: Everything) -> bool:
    """ControlLLLite, in whichever attentions: its picture of a feature map is made once per pass, in one size."""
    functions = everything.functions("attn1_patch", "attn2_patch")
    if any(type(function).__qualname__.endswith(CONTROL_LLLITE) for function in functions):
        return True
    return any(getattr(module, "lllite_list", None) for module in everything.unet.modules())


def _masks_regions(everything: Everything) -> bool:
    """sd-webui-controlnet's IP-Adapters with an effective region mask: they work out a feature map's size from its
    number of tokens and the latent's size, halved evenly. Their functions on an attention hold the adapter they are of.
    """
    functions = (f for module in everything.unet.modules() for f in getattr(module, "ipadapter_hacks", ()))
    held = (cell.cell_contents for function in functions for cell in getattr(function, "__closure__", None) or ())
    return any(getattr(adapter, "effective_region_mask", None) is not None for adapter in held)


def _reads_the_middle(everything: Everything) -> bool:
    """Self-attention guidance on A1111: a forward of its own on the middle block's self-attention keeps the map for a
    callback, which fails at other sizes than the latent's eighth, is silenced by the host, and then uses an old map.
    """
    unet, unet_map = everything.unet, everything.unet_map
    middle = [unet.get_submodule(name) for name in unet_map.middle.attentions]
    others = [unet.get_submodule(name) for block in unet_map.inputs for name in block.attentions]
    return not {*map(_forward_code, middle)} <= {*map(_forward_code, others)}


def _forward_code(module: Any) -> Any:
    """What runs as a module's forward (below HyperTile's), the same for all that have the same function there."""
    forward = getattr(getattr(module, HYPERTILE, None), "forward", module.forward)
    forward = getattr(forward, "func", forward)  # of a functools.partial
    function = getattr(forward, "__func__", forward)
    return getattr(function, "__code__", function)


def _runs_beside_downsamplers(everything: Everything) -> bool:
    """A LoRA in A1111's old way, by its setting `lora_functional`: it has a convolution of its own beside each of the
    host's, with the stride that one had when the LoRA was loaded, and their outputs are added.
    """
    if not getattr(getattr(sys.modules.get("modules.shared"), "opts", None), "lora_functional", False):
        return False
    blocks = everything.unet_map.inputs
    downsamplers = [everything.unet.get_submodule(block.down) for block in blocks if block.down]
    layers = {getattr(downsampler, "network_layer_name", None) for downsampler in downsamplers}
    loaded = getattr(sys.modules.get("networks"), "loaded_networks", ())
    return any(layers & set(getattr(network, "modules", ())) for network in loaded)


def _pads_in_its_own_way(everything: Everything) -> bool:
    """Convolutions whose arithmetic another extension has replaced, with paddings worked out once that it keeps to
    itself. Asymmetric tiling keeps them on the convolution, where they are followed (`core.geometry`).
    """
    blocks = everything.unet_map.inputs
    downsamplers = [everything.unet.get_submodule(block.down) for block in blocks if block.down]
    own = [
        vars(conv)["_conv_forward"]
        for conv in downsamplers
        if not hasattr(conv, "paddingX") and "_conv_forward" in vars(conv)
    ]
    return any(getattr(forward, "__func__", forward) is not nn.Conv2d._conv_forward for forward in own)


def _windows_conflict(unet: nn.Module, unet_map: UNetMap, transformer_options: Mapping[str, Any]) -> str:
    if transformer_options.get("patches", {}).get("attn1_patch"):
        return CHANGES_SELF_ATTENTION
    replaced = {key[:2] for key in transformer_options.get("patches_replace", {}).get("attn1", {})}
    for site in unet_map.finest_attentions:
        if ("output" if site.output else "input", site.block) in replaced:
            return REPLACES_SELF_ATTENTION
        scale = 2 ** unet_map.level(unet_map.partner(site.block) if site.output else site.block)
        attention = unet.get_submodule(site.name)
        block = unet.get_submodule(site.name.rpartition(".")[0])
        for reason, is_there in IN_SELF_ATTENTION.items():
            if is_there(SelfAttention(unet, block, attention, scale)):
                return reason
    return ""


class SelfAttention(NamedTuple):
    """A self-attention (attn1), its transformer block, their UNet, and the cells per feature and side there."""

    unet: Any
    block: Any
    attention: Any
    scale: int


def _merges_tokens(site: SelfAttention) -> bool:
    """tomesd: every block gets another class, knows the settings, and merges if it is not coarser than they allow.

    When it is taken off the class goes and the settings stay.
    """
    if type(site.block).__name__ != "ToMeBlock":
        return False
    settings = site.block._tome_info["args"]
    return settings["ratio"] > 0 and settings["merge_attn"] and site.scale <= settings["max_downsample"]


def _tiles(site: SelfAttention) -> bool:
    """A1111's built-in HyperTile: stays on the module for ever once used, and says there whether it is on."""
    return getattr(getattr(site.attention, HYPERTILE, None), "enabled", False)


def _adds_to_projections(site: SelfAttention) -> bool:
    """ControlLLLite: adds a picture of the whole feature map to queries, keys or values."""
    projections = (getattr(site.attention, name, None) for name in ("to_q", "to_k", "to_v"))
    return any(getattr(projection, "lllite_list", None) for projection in projections)


def _looks_at_other_pictures(site: SelfAttention) -> bool:
    """sd-webui-controlnet's reference and style-align modes: self-attention also over another picture's tokens.

    It keeps the block's own forward beside the one it puts in its place. The latter stays until its next job without
    these modes; between jobs it attends as the own one does.
    """
    own = getattr(site.block, "_original_inner_forward_cn_hijack", None)
    return own is not None and site.block._forward != own and is_controlled(site.unet)


def _is_another_module(site: SelfAttention) -> bool:
    """LayerDiffuse's joint modes (SD1.5) put a module in the place of each attention that also attends from one frame
    of the batch to the other, cell by cell; the hosts' own all have these projections.
    """
    return not all(hasattr(site.attention, name) for name in ("to_q", "to_k", "to_v", "to_out"))


RELIED_ON = frozenset({Need.INPUT, Need.FEATURES, Need.LAYERS})
"""Held by who relies on the sizes of feature maps, and works on them in every call."""

IN_FEATURES: dict[str, tuple[frozenset[Need], Callable[[Everything], bool]]] = {
    CONTROLNET_AT_WORK: (frozenset({Need.INPUT, Need.LAYERS}), lambda found: is_controlled(found.unet)),
    DEEP_SHRINK_ON: (frozenset({Need.RESIZING, Need.LAYERS}), _shrinks_features),
    RESIZES_FEATURES: (frozenset({Need.RESIZING, Need.LAYERS}), _resizes_features),
    LLLITE_IN_USE: (RELIED_ON, _adds_to_tokens),
    MASKS_REGIONS: (RELIED_ON, _masks_regions),
    READS_THE_MIDDLE: (RELIED_ON, _reads_the_middle),
    RUNS_BESIDE_DOWNSAMPLERS: (frozenset({Need.DOWNSAMPLERS}), _runs_beside_downsamplers),
    WORKS_IN_LAYERS: (frozenset({Need.LAYERS}), _works_in_layers),
    PADS_IN_ITS_OWN_WAY: (frozenset({Need.CONVOLUTIONS}), _pads_in_its_own_way),
}
"""What the user is told -> what is held, and how it is recognised; of several the first is told."""

IN_SELF_ATTENTION: dict[str, Callable[[SelfAttention], bool]] = {
    OWN_SELF_ATTENTION: _is_another_module,
    TOKENS_MERGED: _merges_tokens,
    HYPERTILE_ON: _tiles,
    LLLITE_IN_USE: _adds_to_projections,
    REFERENCE_IN_USE: _looks_at_other_pictures,
}
"""What the user is told -> how it is recognised in one of the places that would get windows."""
