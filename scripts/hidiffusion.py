from hidiffusion_ext.webui.plan_route import add_route
from hidiffusion_ext.webui.script import HiDiffusionScript  # noqa: F401  # the host collects Script classes by import
from modules import script_callbacks

script_callbacks.on_app_started(add_route)
