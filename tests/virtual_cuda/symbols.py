"""The tables of functions that the virtual device's libraries have, from their sources.

``python -m tests.virtual_cuda.symbols`` writes them into docs/virtual_cuda.md, between its markers.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "virtual_cuda.md"
TABLES = {
    "runtime": ROOT / "csrc/vcuda/runtime_symbols.inc",
    "driver": ROOT / "csrc/vcuda/driver/driver_symbols.inc",
}


@dataclass(frozen=True)
class Symbol:
    name: str
    concern: str
    is_real: bool
    note: str  #: what is different from hardware


def table(library: str) -> list[Symbol]:
    """The functions of "runtime" or "driver", as the library itself is built from them."""
    text = TABLES[library].read_text()
    found = re.findall(r'^VCUDA_(REAL|STUB)\((\w+), "([^"]*)"(?:, "([^"]*)")?\)$', text, re.MULTILINE)
    return [Symbol(name, concern, kind == "REAL", note) for kind, name, concern, note in found]


def exported(library: Path) -> set[str]:
    """The functions that a shared library defines."""
    return {line.split()[-1].split("@")[0] for line in _nm("--defined-only", library) if " T " in line or " i " in line}


def imported(library: Path, suffix: str = "") -> set[str]:
    """The names that a shared library wants from others; with a suffix, those of that symbol version."""
    names = [line.split()[-1] for line in _nm("--undefined-only", library)]
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def _nm(option: str, library: Path) -> list[str]:
    done = subprocess.run(["nm", "-D", option, str(library)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def describe(library: str) -> str:
    """A table in Markdown, by concern."""
    lines = ["| | there | not there |", "|---|---|---|"]
    symbols = sorted(table(library), key=lambda symbol: symbol.concern)
    for concern, group in groupby(symbols, key=lambda symbol: symbol.concern):
        members = sorted(group, key=lambda symbol: symbol.name)
        real = ", ".join(_entry(symbol) for symbol in members if symbol.is_real)
        stubs = ", ".join(_entry(symbol) for symbol in members if not symbol.is_real)
        lines.append(f"| **{concern}** | {real} | {stubs} |")
    return "\n".join(lines)


def _entry(symbol: Symbol) -> str:
    return f"`{symbol.name}`" + (f" ({symbol.note})" if symbol.note else "")


def with_tables(document: str) -> str:
    """The document with its tables as they should be."""
    for library in TABLES:
        pattern = rf"(<!-- {library} -->\n).*?(\n<!-- end {library} -->)"
        document, count = re.subn(
            pattern, lambda match, name=library: match[1] + describe(name) + match[2], document, flags=re.DOTALL
        )
        assert count == 1, library
    return document


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
