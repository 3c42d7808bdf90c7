"""Compiles the products in `src/eckart/ops/native` when a wheel is built or the project is installed for editing.

Where that cannot be done, because a machine has no compiler for it, eckart is installed without and uses PyTorch alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path(__file__).resolve().parent / "src" / "eckart" / "ops" / "native"


class CompiledProducts(BuildHookInterface):
    """Puts the compiled library into the wheel, and the machine into its name."""

    def dependencies(self) -> list[str]:
        build = _build()
        return [build.COMPILER] if build.target() is not None and not build.fresh() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build = _build()
        where = build.target()
        if where is None:
            self.app.display_warning("no compiled products for this machine: everything will run through PyTorch")
            return
        made = build.library()
        if not build.fresh():
            try:
                build.compile_products(made)
            except (RuntimeError, OSError) as error:
                made.unlink(missing_ok=True)
                self.app.display_warning(f"products were not compiled, everything will run through PyTorch: {error}")
                return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{where[2]}"
        build_data["artifacts"].append(str(made.relative_to(self.root)))


def _build() -> ModuleType:
    """`build.py`, without importing eckart, which needs PyTorch."""
    spec = importlib.util.spec_from_file_location("eckart_build", NATIVE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
