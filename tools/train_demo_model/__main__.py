"""Command line of the demo model's training; README.md beside it explains the steps."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from .autoencoder import train_autoencoder
from .common import Run
from .data import load_glyphs
from .export import export
from .unet import draw_samples, train_unet


def main() -> None:
    """Parses the arguments and runs one command."""
    arguments = _parser().parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    run = Run(arguments.work, torch.device(arguments.device), arguments.seed, arguments.precision == "bf16")
    glyphs = load_glyphs()
    if arguments.command == "autoencoder":
        train_autoencoder(run, glyphs, arguments.iterations, arguments.decoder_only, arguments.start)
    elif arguments.command == "unet":
        train_unet(run, glyphs, arguments.iterations, arguments.sample_every, arguments.start)
    elif arguments.command == "sample":
        captions = arguments.captions or [glyph.caption for glyph in glyphs[:: arguments.every]]
        name = f"{arguments.height}x{arguments.width}-seed{arguments.seed}.png"
        size = arguments.height, arguments.width
        print(draw_samples(run, captions, *size, arguments.steps, arguments.guidance, name))
    else:
        print(export(run, glyphs, arguments.out))


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--work", type=Path, required=True, help="folder for checkpoints, logs and samples")
    common.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    common.add_argument("--threads", type=int, help="CPU threads (default: torch's own choice)")
    common.add_argument("--seed", type=int, default=0)
    common.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the matrix products")
    parser = argparse.ArgumentParser(prog="python -m tools.train_demo_model", description=__doc__)
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--start", type=Path, help="folder of an exported model to train further, such as demo")
    commands = parser.add_subparsers(dest="command", required=True)

    autoencoder = commands.add_parser("autoencoder", parents=[common, training], help="1. train the autoencoder")
    autoencoder.add_argument("--iterations", type=int, default=1300, help="training ends after this many in all")
    autoencoder.add_argument("--decoder-only", action="store_true", help="keep the latents: only the decoder learns")

    unet = commands.add_parser("unet", parents=[common, training], help="2. train the UNet and the text encoder")
    unet.add_argument("--iterations", type=int, default=4300, help="training ends after this many in all")
    unet.add_argument("--sample-every", type=int, default=500, help="iterations between two sample sheets")

    sample = commands.add_parser("sample", parents=[common], help="draw a sheet of samples")
    sample.add_argument("captions", nargs="*", help="what to draw (default: captions of the label file)")
    sample.add_argument("--every", type=int, default=3, help="without captions: every how many labels")
    sample.add_argument("--height", type=int, default=128, help="pixels, a multiple of 64")
    sample.add_argument("--width", type=int, default=128, help="pixels, a multiple of 64")
    sample.add_argument("--steps", type=int, default=20)
    sample.add_argument("--guidance", type=float, default=3.0)

    out = commands.add_parser("export", parents=[common], help="3. write the checkpoint")
    out.add_argument("--out", type=Path, default=Path("demo"), help="target folder")
    return parser


if __name__ == "__main__":
    main()
