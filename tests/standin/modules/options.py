"""Settings: `OptionInfo` describes one, `Options` holds their values as attributes."""

from __future__ import annotations

from typing import Any

from modules import errors

FIELDS = {"data_labels", "data"}


class OptionInfo:
    def __init__(
        self, default=None, label="", component=None, component_args=None, onchange=None, section=None, infotext=None
    ):
        self.default, self.label, self.component, self.component_args = default, label, component, component_args
        self.onchange, self.section, self.infotext = onchange, section, infotext
        self.comment_after, self.do_not_save = "", False

    def info(self, info: str) -> OptionInfo:
        """A remark behind the setting's label."""
        self.comment_after += f"<span>({info})</span>"
        return self

    def needs_reload_ui(self) -> OptionInfo:
        return self.info("after Reload UI")


class OptionHTML(OptionInfo):
    """A line of text between the settings; it has no value."""

    def __init__(self, text: str):
        super().__init__(str(text).strip())
        self.do_not_save = True


class Options:
    """`opts.x` is the value set, else the default; setting an unknown name makes a plain attribute."""

    def __init__(self, data_labels: dict[str, OptionInfo]):
        self.data_labels = data_labels
        self.data: dict[str, Any] = {k: v.default for k, v in data_labels.items() if not v.do_not_save}

    def __setattr__(self, key: str, value: Any) -> None:
        if key in FIELDS or not (key in self.data or key in self.data_labels):
            super().__setattr__(key, value)
        elif not (key in self.data_labels and self.data_labels[key].do_not_save):
            self.data[key] = value

    def __getattr__(self, item: str) -> Any:
        if item in FIELDS:
            raise AttributeError(item)
        if item in self.data:
            return self.data[item]
        if item in self.data_labels:
            return self.data_labels[item].default
        raise AttributeError(f"'Options' object has no attribute '{item}'")

    def set(self, key: str, value: Any, is_api: bool = False, run_callbacks: bool = True) -> bool:
        """Set and call `onchange`; a failing `onchange` puts the old value back. True if the value changed."""
        old, option = self.data.get(key), self.data_labels[key]
        if old == value or option.do_not_save:
            return False
        setattr(self, key, value)
        if run_callbacks and option.onchange is not None:
            try:
                option.onchange()
            except Exception as e:
                errors.display(e, f"setting {key}")
                setattr(self, key, old)
                return False
        return True

    def add_option(self, key: str, info: OptionInfo) -> None:
        self.data_labels[key] = info
        if key not in self.data and not info.do_not_save:
            self.data[key] = info.default

    def cast_value(self, key: str, value: Any) -> Any:
        """`value` (text of an infotext) in the type of the option's default."""
        expected = type(self.data_labels[key].default)
        return value not in ("False", "false", "0", "") if expected is bool else expected(value)
