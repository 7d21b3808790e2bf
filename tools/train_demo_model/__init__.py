"""Trains the demo model: a tiny text-to-image model in Stable Diffusion 1's format, from an emoji font."""
