"""Pack the phone's npm packages, which no wheel declares as dependencies, with the relay."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """For a wheel and for what is built into one later. Without the packages there is no page."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        wheel = self.target_name == "wheel"
        folder = "coralmux_site/static/phone/npm" if wheel else "node_modules"
        files = {f"node_modules/{name}": f"{folder}/{name}" for name in _names(Path(self.root))}
        if all((Path(self.root) / file).is_file() for file in files):
            build_data["force_include"].update(files)
        else:
            self.app.display_warning(
                "The phone's npm packages are not installed (`make install`): this relay will "
                "have no phone in the browser."
            )


def _names(root: Path) -> tuple[str, ...]:
    spec = importlib.util.spec_from_file_location(
        "phone_files", root / "coralmux_site" / "phone_files.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names: tuple[str, ...] = module.NPM
    return names
