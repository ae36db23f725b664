"""Builds the fuzzing programs into build/fuzz, again only when a source has changed.

`fuzz` has the sanitizers, and no optimisation, which would take longer than it saves. `mutants` only prints.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
OUTPUT = ROOT / "build" / "fuzz"
FLAGS = "-std=c++17 -O0 -g1 -Wno-psabi -pthread -ffp-contract=off -fno-strict-aliasing"
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"


def sources(program: str) -> list[Path]:
    """For `fuzz`, all of the machine but its binding to Python and the handlers compiled for one processor only."""
    own = [HERE / f"{program}.cpp", HERE / "mutator.cpp"]
    if program == "mutants":
        return own
    left_out = {"bind.cpp", "core_avx2.cpp", "core_avx512.cpp"}
    machine = (ROOT / "csrc/ptxvm").rglob("*.cpp")
    return own + sorted(file for file in machine if file.name not in left_out)


def ninja_file(program: str) -> str:
    flags = f"{FLAGS} {SANITIZERS}" if program == "fuzz" else FLAGS
    lines = [
        "rule compile",
        f"  command = c++ {flags} -I{ROOT / 'csrc/ptxvm'} -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = c++ {flags} $in -o $out",
    ]
    objects = []
    for file in sources(program):
        objects.append(str(file.relative_to(ROOT)).replace("/", "_") + ".o")
        lines.append(f"build {objects[-1]}: compile {file}")
    lines.append(f"build {program}: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build(program: str) -> Path:
    """The program `fuzz` or `mutants`, built. Raises subprocess.CalledProcessError with the compiler's output."""
    folder = OUTPUT / f"{program}.build"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(ninja_file(program))
    subprocess.run([sys.executable, "-m", "ninja", "-C", str(folder)], check=True, capture_output=True, text=True)
    return folder / program


if __name__ == "__main__":
    print(build("fuzz"), build("mutants"))
