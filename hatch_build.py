"""When pv is built or installed, the kernels are compiled if there is a C compiler. Without one pv works too."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledKernels(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """The library lies beside its source; a wheel that has it is one for this platform."""
        compile_ = runpy.run_path(str(Path(self.root, "vecstore", "native", "compile.py")))
        if failure := compile_["compile_kernels"]():
            self.app.display_warning(f"the kernels were not compiled, numpy is used instead: {failure}")
            return
        if version == "editable":
            return
        library = compile_["LIBRARY"]
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["force_include"][str(library)] = f"pv/vecstore/native/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"  # it is called through ctypes: no Python's own interface
