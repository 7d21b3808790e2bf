"""These tests use the stand-in's modules in their own process."""

import bare_k_diffusion

bare_k_diffusion.install()
