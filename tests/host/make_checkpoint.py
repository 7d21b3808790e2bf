"""Write small checkpoints of random weights, each with its config beside it, and a LoRA for the SD1 ones.

    python make_checkpoint.py WEBUI_DIR FOLDER LORA.safetensors      (with the WebUI's own Python)

The UNets are 32 channels wide instead of 320, the VAEs 32 instead of 128; the CLIP text encoder is as small as the demo
model's and has its tokenizer, the OpenCLIP ones of SD2 and SDXL are open_clip's smallest. Nothing is downloaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

STABILITY, SGM = "repositories/stable-diffusion-stability-ai", "repositories/generative-models"
CHECKPOINTS = {
    "tiny-random-sd1": "configs/v1-inference.yaml",
    "tiny-sd1-b": "configs/v1-inference.yaml",
    "tiny-inpainting": "configs/v1-inpainting-inference.yaml",
    "tiny-pix2pix": "configs/instruct-pix2pix.yaml",
    "tiny-sd2-v": f"{STABILITY}/configs/stable-diffusion/v2-inference-v.yaml",
    "tiny-sdxl": f"{SGM}/configs/inference/sd_xl_base.yaml",
}
"""Name -> the WebUI's own config of its kind, made smaller."""

CLIP = Path(__file__).resolve().parents[2] / "demo" / "text_encoder"
"""Where a WebUI finds CLIP's config and tokenizer, which are in no checkpoint."""

OPEN_CLIP, OPEN_CLIP_WIDTH = "ViT-S-32-alt", 256


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Give zero-initialised weights values too: otherwise the model would return zeros."""
    for weight in model.parameters():
        if weight.ndim > 1 and not weight.any():
            weight.normal_(std=weight[0].numel() ** -0.5)
    return model.eval()


def shrink(params: Any, clip: Any) -> Any:
    """Makes the `model.params` of a config small, with CLIP of the given config; returns its part about the UNet."""
    about_unet = params.get("network_config") or params.unet_config
    about_unet.params.model_channels = 32
    about_unet.params.pop("use_fp16", None)
    about_unet.params.update(
        {"num_head_channels": 16} if "num_head_channels" in about_unet.params else {"num_heads": 4}
    )
    vae = params.first_stage_config.params.ddconfig
    vae.update({"ch": 32, "num_res_blocks": 1})
    vae.pop("attn_type", None)  # xformers
    open_clip = {"arch": OPEN_CLIP, "version": None}
    if "conditioner_config" in params:
        small, big = params.conditioner_config.params.emb_models[:2]
        small.params.version = str(CLIP)
        small.params.layer_idx = clip.num_hidden_layers - 1  # the last but one, as SDXL has it
        big.params.update(open_clip)
        sizes_and_crop = 6 * 256
        about_unet.params.context_dim = clip.hidden_size + OPEN_CLIP_WIDTH
        about_unet.params.adm_in_channels = OPEN_CLIP_WIDTH + sizes_and_crop
    elif "OpenCLIP" in params.cond_stage_config.target:
        params.cond_stage_config.params.update(open_clip)
        about_unet.params.context_dim = OPEN_CLIP_WIDTH
    else:
        params.cond_stage_config.params = {"version": str(CLIP)}
        about_unet.params.context_dim = clip.hidden_size
    return about_unet


def text_encoders() -> dict[str, dict[str, Any]]:
    """For the name of each kind of model: its random text encoders by their place in a checkpoint."""
    import open_clip
    from transformers import CLIPTextConfig, CLIPTextModel

    clip = CLIPTextModel(CLIPTextConfig.from_pretrained(CLIP)).eval()
    big = open_clip.create_model(OPEN_CLIP)
    del big.visual
    for last_norm in (clip.text_model.final_layer_norm, big.ln_final):
        last_norm.bias.normal_(std=0.5)  # the WebUI divides by the mean of the output: never 0
    return {
        "sd1": {"cond_stage_model.transformer.": clip},
        "sd2": {"cond_stage_model.model.": big},
        "sdxl": {"conditioner.embedders.0.transformer.": clip, "conditioner.embedders.1.model.": big},
    }


@torch.no_grad()
def main(webui: Path, folder: Path, lora: Path) -> None:
    os.chdir(webui)
    sys.path[:0] = [str(webui / STABILITY), str(webui / SGM)]
    from ldm.models.autoencoder import AutoencoderKL
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from safetensors.torch import save_file

    torch.manual_seed(1)
    texts = text_encoders()
    clip = texts["sd1"]["cond_stage_model.transformer."].config
    for name, path in CHECKPOINTS.items():
        config = OmegaConf.load(webui / path)
        about_unet = shrink(config.model.params, clip)
        unet = randomise(instantiate_from_config(about_unet))
        about_vae = config.model.params.first_stage_config.params
        vae = randomise(AutoencoderKL(ddconfig=about_vae.ddconfig, lossconfig=about_vae.lossconfig, embed_dim=4))
        x = torch.randn(1, about_unet.params.in_channels, 16, 16)
        context = torch.randn(1, 77, about_unet.params.context_dim)
        is_sdxl = "adm_in_channels" in about_unet.params
        y = {"y": torch.randn(1, about_unet.params.adm_in_channels)} if is_sdxl else {}
        unet.out[-1].weight.mul_(0.7 / unet(x, torch.tensor([500.0]), context=context, **y).std())
        vae.decoder.conv_out.weight.mul_(0.5 / vae.decode(4 * torch.randn(1, 4, 16, 16)).std())
        text = texts["sdxl" if is_sdxl else "sd2" if "sd2" in name else "sd1"]
        parts = {"model.diffusion_model.": unet, "first_stage_model.": vae, **text}
        weights = {
            prefix + key: value.half().contiguous()
            for prefix, part in parts.items()
            for key, value in part.state_dict().items()
            if not key.endswith("position_ids")
        }
        save_file(weights, str(folder / f"{name}.safetensors"))
        OmegaConf.save(config, folder / f"{name}.yaml")
        if not lora.exists():
            save_file(random_lora(unet), str(lora))


def random_lora(unet: torch.nn.Module, rank: int = 2) -> dict[str, torch.Tensor]:
    """Changes to a downsampler, a 3x3 convolution, and to a self-attention, under kohya's names for them."""
    layers = {
        "down_blocks_0_downsamplers_0_conv": unet.input_blocks[3][0].op,
        "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (
            unet.input_blocks[1][1].transformer_blocks[0].attn1.to_q
        ),
    }
    weights = {}
    for name, layer in layers.items():
        outputs, inputs, *kernel = layer.weight.shape
        down = torch.randn(rank, inputs, *kernel) * 0.2
        up = torch.randn(outputs, rank, *(1 for _ in kernel)) * 0.2
        weights |= {f"lora_unet_{name}.lora_down.weight": down, f"lora_unet_{name}.lora_up.weight": up}
        weights[f"lora_unet_{name}.alpha"] = torch.tensor(float(rank))
    return weights


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
