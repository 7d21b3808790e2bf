from hidiffusion_ext.webui.script import HiDiffusionScript  # noqa: F401  # the host collects Script classes by import
