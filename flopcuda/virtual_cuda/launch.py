"""Starting a program under the virtual device: the same interpreter once more, in an environment that brings it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from flopcuda import virtual_cuda

FOLDER = Path(__file__).parent
LIBRARIES = FOLDER / "lib"
#: Holds a sitecustomize module, which Python imports first wherever PYTHONPATH leads to it.
BOOTSTRAP = FOLDER / "bootstrap"

#: torch's environment variable for its allocator's options, under its new and its old name.
ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


class UnavailableError(RuntimeError):
    """There can be no virtual device here; the sentence says why."""


def ensure() -> None:
    """Go on with the virtual device: do nothing if this process has it, else start the same command again with it.

    Raises:
        UnavailableError: it can't be had.
    """
    if not virtual_cuda.is_active():
        restart(sys.orig_argv[1:])


def restart(arguments: Sequence[str], settings: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process by a Python interpreter that has the virtual device.

    Args:
        arguments: the interpreter's.
        settings: environment variables to set besides.

    Raises:
        UnavailableError: there can be no virtual device.
    """
    variables = {**os.environ, **environment(os.environ), **(settings or {})}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *arguments], variables)


def environment(present: Mapping[str, str]) -> dict[str, str]:
    """What the virtual device needs of a process's environment.

    Args:
        present: the environment that it is added to.

    Returns:
        The variables that change.

    Raises:
        UnavailableError: there can be no virtual device.
    """
    if sys.flags.ignore_environment or sys.flags.no_site:
        raise UnavailableError("the virtual CUDA device can't be brought into a Python that runs with -E, -I or -S")
    added = {
        "LD_PRELOAD": _prepended(map(str, _libraries()), present.get("LD_PRELOAD")),
        "PYTHONPATH": _prepended([str(BOOTSTRAP)], present.get("PYTHONPATH")),
    }
    if not any(name in present for name in ALLOCATOR_VARIABLES):
        # Every tensor is an allocation of its own: the machine finds an access one element beyond its end.
        added |= dict.fromkeys(ALLOCATOR_VARIABLES, "backend:cudaMallocAsync")
    return added


def _prepended(paths: Sequence[str] | map[str], present: str | None) -> str:
    return os.pathsep.join([*paths, *([present] if present else [])])


def _libraries() -> list[Path]:
    """The replacements for NVIDIA's libraries that fit the installed torch."""
    version = _torch_cuda_version()
    libraries = [LIBRARIES / f"libcudart.so.{version.partition('.')[0]}", LIBRARIES / "libcuda.so.1"]
    missing = next((library.name for library in libraries if not library.exists()), None)
    if missing:
        built = ", ".join(sorted(path.name for path in LIBRARIES.glob("libcudart.so.*"))) or "none"
        raise UnavailableError(
            f"the virtual CUDA device needs its {missing} for this torch (CUDA {version}), but the build of flopcuda "
            f"left {built}: it makes the one of the CUDA toolkit that it finds"
        )
    return libraries


def _torch_cuda_version() -> str:
    """Of the torch that would be imported, read without importing it."""
    import torch

    if torch.version.cuda is None:
        raise UnavailableError(
            f"torch {torch.__version__} was built without CUDA, so there is no use for a virtual CUDA device"
        )
    return torch.version.cuda
