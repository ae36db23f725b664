"""Python imports this first in every process under the virtual device: it has torch's operators replaced.

The launcher puts this folder on PYTHONPATH, so that it is so in child processes, too. Whatever sitecustomize there is
besides gets its turn at the end.
"""

from __future__ import annotations

import atexit
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

BOOTSTRAP = Path(__file__).resolve().parent
ROOT = BOOTSTRAP.parents[2]


class AfterTorch(MetaPathFinder):
    """Finds torch as others do, and goes on when it has been imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                use_virtual_device()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def use_virtual_device() -> None:
    from flopcuda.virtual_cuda import operators

    operators.install()


def exit_with_findings() -> None:
    if "torch" in sys.modules:
        from flopcuda.virtual_cuda import records

        records.exit_with_findings()


def import_the_other_sitecustomize() -> None:
    this = sys.modules.pop(__name__)
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != BOOTSTRAP]
    try:
        importlib.import_module(__name__)
    except ModuleNotFoundError:
        sys.modules[__name__] = this


atexit.register(exit_with_findings)  # before anybody else registers anything, hence called last
# At the end, where it hides nothing: the flopcuda that brought the device is the one that serves it.
sys.path.append(str(ROOT))
sys.meta_path.insert(0, AfterTorch())
import_the_other_sitecustomize()
