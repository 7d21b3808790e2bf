from hidiffusion_ext.webui import plan_route, settings, xyz
from hidiffusion_ext.webui.script import HiDiffusionScript  # noqa: F401  # the host collects Script classes by import
from modules import script_callbacks

# The host runs this file anew at each "Reload UI"; the package stays loaded. The plot was loaded before this file
# (metadata.ini); the host's callback for such additions, before_ui, comes too late with --nowebui.
xyz.add_axes()
script_callbacks.on_ui_settings(settings.add_settings)
script_callbacks.on_app_started(plan_route.add_route)
