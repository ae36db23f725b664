"""docs/ptx.md: its example prints what it says, and its lists are the machine's."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from flopcuda import _ptxvm, ptx

TEXT = (Path(__file__).parents[2] / "docs" / "ptx.md").read_text()


def test_the_example_prints_its_output() -> None:
    code, output = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", TEXT, re.DOTALL).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "ptx.md", "exec"), {})
    assert printed.getvalue() == output


def test_all_opcodes_are_listed() -> None:
    listed = " ".join(re.findall(r"^> (.*)$", TEXT, re.MULTILINE)).split()
    assert listed == sorted(_ptxvm.opcodes)


def test_all_checks_are_listed() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE)) == ptx.CHECKS
