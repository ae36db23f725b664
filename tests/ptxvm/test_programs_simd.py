"""CUDA's SIMD intrinsics, which compilers turn into video instructions, packed minima and much else, against Python."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptxvm.programs import Build, builds
from tests.ptxvm.reference import clamp, signed

Parts = Callable[..., int]


def flag(holds: bool, width: int) -> int:
    return (1 << width) - 1 if holds else 0


#: By name: whether the parts are signed, and the result of one, given its width.
UNARY: dict[str, tuple[bool, Parts]] = {
    "abs": (True, lambda x, w: abs(x)),
    "absss": (True, lambda x, w: clamp(abs(x), w, True)),
    "neg": (True, lambda x, w: -x),
    "negss": (True, lambda x, w: clamp(-x, w, True)),
}
BINARY: dict[str, tuple[bool, Parts]] = {
    "absdiffs": (True, lambda x, y, w: abs(x - y)),
    "absdiffu": (False, lambda x, y, w: abs(x - y)),
    "add": (False, lambda x, y, w: x + y),
    "addss": (True, lambda x, y, w: clamp(x + y, w, True)),
    "addus": (False, lambda x, y, w: clamp(x + y, w, False)),
    # Rounded half away from zero.
    "avgs": (True, lambda x, y, w: (x + y + (x + y >= 0)) >> 1),
    "avgu": (False, lambda x, y, w: (x + y + 1) >> 1),
    "cmpeq": (False, lambda x, y, w: flag(x == y, w)),
    "cmpges": (True, lambda x, y, w: flag(x >= y, w)),
    "cmpgeu": (False, lambda x, y, w: flag(x >= y, w)),
    "cmpgts": (True, lambda x, y, w: flag(x > y, w)),
    "cmpgtu": (False, lambda x, y, w: flag(x > y, w)),
    "cmples": (True, lambda x, y, w: flag(x <= y, w)),
    "cmpleu": (False, lambda x, y, w: flag(x <= y, w)),
    "cmplts": (True, lambda x, y, w: flag(x < y, w)),
    "cmpltu": (False, lambda x, y, w: flag(x < y, w)),
    "cmpne": (False, lambda x, y, w: flag(x != y, w)),
    "haddu": (False, lambda x, y, w: (x + y) >> 1),
    "maxs": (True, lambda x, y, w: max(x, y)),
    "maxu": (False, lambda x, y, w: max(x, y)),
    "mins": (True, lambda x, y, w: min(x, y)),
    "minu": (False, lambda x, y, w: min(x, y)),
    "sads": (True, lambda x, y, w: abs(x - y)),
    "sadu": (False, lambda x, y, w: abs(x - y)),
    "seteq": (False, lambda x, y, w: int(x == y)),
    "setges": (True, lambda x, y, w: int(x >= y)),
    "setgeu": (False, lambda x, y, w: int(x >= y)),
    "setgts": (True, lambda x, y, w: int(x > y)),
    "setltu": (False, lambda x, y, w: int(x < y)),
    "setne": (False, lambda x, y, w: int(x != y)),
    "sub": (False, lambda x, y, w: x - y),
    "subss": (True, lambda x, y, w: clamp(x - y, w, True)),
    "subus": (False, lambda x, y, w: clamp(x - y, w, False)),
}


def by_parts(width: int, with_sign: bool, function: Parts, *words: int, joined: bool = True) -> int:
    """The function of each part; side by side in a word, or added up."""
    ones = (1 << width) - 1
    result = 0
    for at in range(0, 32, width):
        parts = [word >> at & ones for word in words]
        value = function(*(signed(part, width) if with_sign else part for part in parts))
        result += (value & ones) << at if joined else value
    return result & 0xFFFFFFFF


def words(seed: int) -> np.ndarray:
    """Random bytes among which the ends of all ranges are frequent."""
    rng = np.random.default_rng(seed)
    edges = np.array([0, 1, 0x7F, 0x80, 0x81, 0xFF], np.uint8)
    bytes_ = np.where(rng.integers(0, 2, 4096) == 0, rng.choice(edges, 4096), rng.integers(0, 256, 4096))
    return bytes_.astype(np.uint8).view(np.uint32)


@builds
def test_parts_of_a_register(build: Build) -> None:
    a, b = words(1), words(2)
    table = [(name, *entry, [a]) for name, entry in UNARY.items()]
    table += [(name, *entry, [a, b]) for name, entry in BINARY.items()]
    out = np.zeros((len(a), 2 * len(table)), np.uint32)
    build.load("simd.cu").run("simd", len(a) // 128, 128, [a, b, out, 2 * len(table)])
    for k, (name, with_sign, function, inputs) in enumerate(table):
        for half, width in enumerate((16, 8)):
            want = [
                by_parts(width, with_sign, lambda *x, f=function, w=width: f(*x, w), *row, joined="sad" not in name)
                for row in zip(*(x.tolist() for x in inputs), strict=True)
            ]
            assert out[:, 2 * k + half].tolist() == want, (name, width)


EXTREMES: list[tuple[int, bool, Parts]] = [
    (32, True, lambda x, y, z: max(x, y, 0)),
    (32, True, lambda x, y, z: max(min(x, y), 0)),
    (16, True, lambda x, y, z: max(x, y, 0)),
    (16, True, lambda x, y, z: max(min(x, y), 0)),
    (32, True, lambda x, y, z: max(x, y, z)),
    (32, False, lambda x, y, z: min(x, y, z)),
    (16, True, lambda x, y, z: max(x, y, z, 0)),
    (16, False, lambda x, y, z: min(x, y, z)),
    (32, True, lambda x, y, z: max(signed(x + y, 32), z)),
    (32, False, lambda x, y, z: min((x + y) & 0xFFFFFFFF, z)),
    (16, True, lambda x, y, z: max(signed(x + y, 16), z, 0)),
    (16, False, lambda x, y, z: min((x + y) & 0xFFFF, z)),
]


@builds
def test_extremes(build: Build) -> None:
    a, b, c = words(3), words(4), words(5)
    out = np.zeros((len(a), len(EXTREMES)), np.uint32)
    build.load("simd.cu").run("extremes", len(a) // 128, 128, [a, b, c, out])
    for k, (width, with_sign, function) in enumerate(EXTREMES):
        rows = zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
        want = [by_parts(width, with_sign, function, *row) for row in rows]
        assert out[:, k].tolist() == want, k
