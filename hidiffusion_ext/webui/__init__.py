"""The extension inside a WebUI: the panel, the hooks, the infotext and the log, all made from `core.options`."""
