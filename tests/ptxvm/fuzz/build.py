"""Builds the fuzzer with the sanitizers into build/fuzz, again only when a source has changed.

Without optimisation, which would take longer than it saves.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
OUTPUT = ROOT / "build" / "fuzz"
FLAGS = (
    "-std=c++17 -O0 -g1 -Wno-psabi -pthread -ffp-contract=off -fno-strict-aliasing "
    "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all"
)


def sources() -> list[Path]:
    """All of the machine but its binding to Python and the handlers that are compiled for one processor only."""
    machine = (ROOT / "csrc/ptxvm").rglob("*.cpp")
    left_out = {"bind.cpp", "core_avx2.cpp", "core_avx512.cpp"}
    return sorted([file for file in machine if file.name not in left_out] + list(Path(__file__).parent.glob("*.cpp")))


def ninja_file() -> str:
    lines = [
        "rule compile",
        f"  command = c++ {FLAGS} -I{ROOT / 'csrc/ptxvm'} -MMD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = c++ {FLAGS} $in -o $out",
    ]
    objects = []
    for file in sources():
        objects.append(str(file.relative_to(ROOT)).replace("/", "_") + ".o")
        lines.append(f"build {objects[-1]}: compile {file}")
    lines.append(f"build fuzz: link {' '.join(objects)}")
    return "\n".join(lines) + "\n"


def build() -> Path:
    """The driver, built. Raises subprocess.CalledProcessError with the compiler's output."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    (OUTPUT / "build.ninja").write_text(ninja_file())
    subprocess.run([sys.executable, "-m", "ninja", "-C", str(OUTPUT)], check=True, capture_output=True, text=True)
    return OUTPUT / "fuzz"


if __name__ == "__main__":
    print(build())
