"""Which distribution provides a tool here, and in what version."""

from __future__ import annotations

import importlib.util
from importlib import metadata

from flopcuda.tools.tool import Tool


def provider(tool: Tool) -> str | None:
    """The distribution that provides the tool's package; None when the package is not there.

    Two distributions may provide the same package. When both are installed, the files are those of the one whose
    version the package states.
    """
    if importlib.util.find_spec(tool.package.partition(".")[0]) is None:
        return None
    found = [name for name in tool.distributions if _version(name)]
    if len(found) < 2:
        return found[0] if found else tool.distributions[0]
    stated = str(getattr(importlib.import_module(tool.package), "__version__", ""))
    return next((name for name in found if stated and str(_version(name)).startswith(stated)), found[0])


def version(tool: Tool) -> str | None:
    """The version of what provides the tool; "unknown" when it came without metadata, None when it is not there."""
    name = provider(tool)
    return None if name is None else _version(name) or "unknown"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
