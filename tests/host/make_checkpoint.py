"""Write small SD1-shaped checkpoints of random weights, each with its config beside it, and a LoRA for them.

    python make_checkpoint.py WEBUI_DIR FOLDER LORA.safetensors      (with the WebUI's own Python)

The UNet is 32 channels wide instead of 320, the VAE 32 instead of 128; the text encoder is as the installation's
config of openai/clip-vit-large-patch14 says.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Give zero-initialised weights values too: otherwise the model would return zeros."""
    for weight in model.parameters():
        if weight.ndim > 1 and not weight.any():
            weight.normal_(std=weight[0].numel() ** -0.5)
    return model.eval()


CHECKPOINTS = {
    "tiny-random-sd1": "v1-inference.yaml",
    "tiny-sd1-b": "v1-inference.yaml",
    "tiny-inpainting": "v1-inpainting-inference.yaml",
    "tiny-pix2pix": "instruct-pix2pix.yaml",
}
"""Name -> the WebUI's own config of its kind, made smaller."""


@torch.no_grad()
def main(webui: Path, folder: Path, lora: Path) -> None:
    os.chdir(webui)
    sys.path.insert(0, str(webui / "repositories" / "stable-diffusion-stability-ai"))
    from ldm.util import instantiate_from_config
    from omegaconf import OmegaConf
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    text = CLIPTextModel(CLIPTextConfig.from_pretrained("openai/clip-vit-large-patch14")).eval()
    text.text_model.final_layer_norm.bias.normal_(std=0.5)  # the WebUI divides by the mean of the output: never 0
    for name, kind in CHECKPOINTS.items():
        config = OmegaConf.load(webui / "configs" / kind)
        params = config.model.params
        params.unet_config.params.update({"model_channels": 32, "num_heads": 4})
        params.first_stage_config.params.ddconfig.update({"ch": 32, "num_res_blocks": 1})
        unet, vae = (randomise(instantiate_from_config(c)) for c in (params.unet_config, params.first_stage_config))
        x = torch.randn(1, params.unet_config.params.in_channels, 16, 16)
        prediction = unet(x, torch.tensor([500.0]), context=torch.randn(1, 77, 768))
        unet.out[-1].weight.mul_(0.7 / prediction.std())
        vae.decoder.conv_out.weight.mul_(0.5 / vae.decode(4 * torch.randn(1, 4, 16, 16)).std())
        parts = {"model.diffusion_model.": unet, "first_stage_model.": vae, "cond_stage_model.transformer.": text}
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
