"""Regenerate the README's tables of measurements from the JSON that the benchmarks wrote.

``python benchmarks/readme.py`` replaces what stands between the markers ``<!-- NAME -->`` and ``<!-- end NAME -->``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"


def cpu_table(measured: dict[str, object]) -> str:
    """Rows of benchmarks/cpu.json."""
    rows = [
        f"| {row['model']} | {row['batch']} | {row['median']:.2f} | {row['min']:.2f} to {row['max']:.2f} |"
        for row in measured["results"]
    ]
    heading = ["| model | batch | median | range |", "|---|---|---|---|"]
    return "\n".join([*heading, *rows, "", f"Machine: {measured['machine']}."])


def main() -> None:
    tables = {"cpu": cpu_table(json.loads((FOLDER / "cpu.json").read_text()))}
    text = README.read_text()
    for name, table in tables.items():
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- end {name} -->)"
        text, found = re.subn(pattern, lambda match, table=table: match[1] + table + match[2], text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"README.md has the markers of {name} {found} times, not once")
    README.write_text(text)


if __name__ == "__main__":
    main()
