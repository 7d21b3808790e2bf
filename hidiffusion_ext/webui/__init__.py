"""The extension inside a WebUI: panel, hooks, infotext, settings page, axes and log, all made from `core.options`."""
