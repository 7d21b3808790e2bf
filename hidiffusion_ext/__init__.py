"""HiDiffusion for Stable Diffusion WebUIs: `core` is the method, `hosts` finds the model, `webui` is the panel."""

__version__ = "0.2.0"
