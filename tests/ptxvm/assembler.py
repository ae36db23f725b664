"""NVIDIA's own assembler as the judge of what is PTX."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ptxvm import instructions

_COMPLAINT = re.compile(r"line (\d+); (error|fatal)\s*: (.*)")


def _run(program: str, text: str) -> subprocess.CompletedProcess[str]:
    command = [program, "-arch=sm_100a", "-O0", "-c", "-", "-o", "/dev/null"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@functools.cache
def ptxas() -> str | None:
    """Of the toolkit, or else the one that comes with triton; only if it knows the instructions of the tests."""
    home = os.environ.get("CUDA_HOME")
    triton = importlib.util.find_spec("triton")
    folders = [Path(home) / "bin"] if home else []
    if triton and triton.origin:
        folders.append(Path(triton.origin).parent / "backends/nvidia/bin")
    for found in [shutil.which("ptxas"), *(str(folder / "ptxas") for folder in folders)]:
        if found and Path(found).is_file() and not _run(found, instructions.module("ret;")).returncode:
            return found
    return None


needs_ptxas = pytest.mark.skipif(ptxas() is None, reason="needs a ptxas of CUDA 12.9 or later")


def complaint(text: str) -> str:
    """What ptxas says against a module; empty if it takes it."""
    program = ptxas()
    assert program
    done = _run(program, text)
    return (done.stderr or "failed") if done.returncode else ""


def refused(texts: list[str]) -> dict[str, str]:
    """Those of the instructions that ptxas refuses, with its reason.

    It goes on after most errors. Lines at which it stops are taken out and the rest is tried again; if it crashes, each
    half is.
    """
    program = ptxas()
    assert program
    reasons: dict[str, str] = {}
    left = list(texts)
    while left:
        done = _run(program, instructions.module(*left))
        if done.returncode and "ptxas fatal   : Ptx assembly aborted" not in done.stderr:
            half = len(left) // 2
            return reasons | (refused(left[:half]) | refused(left[half:]) if half else {left[0]: "ptxas crashes"})
        complaints = [
            (left[int(line) - instructions.FIRST_LINE], kind, reason)
            for line, kind, reason in _COMPLAINT.findall(done.stderr)
        ]
        stopped = {text for text, kind, _ in complaints if kind == "fatal"}
        reasons |= {text: reason for text, _, reason in complaints if not stopped or text in stopped}
        if not stopped:
            break
        left = [text for text in left if text not in stopped]
    return reasons
