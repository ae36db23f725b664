"""The CUDA language on the machine: the math library, wide integers, calls of all kinds, output, locks and queues."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import kinds, needs_nvcc
from tests.ptxvm.programs import DEBUG, OPTIMISED, SEEDS, Build, Program, builds, lanes

Array = np.ndarray[Any, Any]


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


# ---- the math library, within the errors that its manual names ----

mpmath.mp.dps = 60
Function = Callable[..., Any]

# By result: the function, and the most units in the last place by which it may differ from the rounded exact result.
FLOAT_UNARY: list[tuple[Function, int]] = [
    (mpmath.sin, 2), (mpmath.cos, 2), (mpmath.tan, 4), (mpmath.exp, 2), (lambda v: mpmath.mpf(2) ** v, 2),
    (mpmath.expm1, 1), (mpmath.log, 1), (lambda v: mpmath.log(v, 2), 1), (mpmath.log10, 2), (mpmath.sqrt, 0),
    (lambda v: 1 / mpmath.sqrt(v), 2), (lambda v: mpmath.sign(v) * mpmath.cbrt(abs(v)), 1), (mpmath.tanh, 2),
    (mpmath.erf, 2), (mpmath.atan, 2), (mpmath.sinh, 3), (mpmath.cosh, 2), (lambda v: 1 / v, 0),
]  # fmt: skip
FLOAT_BINARY: list[tuple[Function, int]] = [
    (mpmath.power, 4), (mpmath.atan2, 3), (mpmath.hypot, 3), (math.fmod, 0), (operator.truediv, 0),
]  # fmt: skip
DOUBLE_UNARY: list[tuple[Function, int]] = [
    (mpmath.sin, 2), (mpmath.cos, 2), (mpmath.exp, 1), (mpmath.log, 1), (lambda v: mpmath.log(v, 2), 1),
    (mpmath.sqrt, 0), (lambda v: 1 / mpmath.sqrt(v), 1), (lambda v: mpmath.sign(v) * mpmath.cbrt(abs(v)), 1),
    (mpmath.tanh, 1), (mpmath.erf, 2), (mpmath.atan, 2), (lambda v: 1 / v, 0),
]  # fmt: skip
DOUBLE_BINARY: list[tuple[Function, int]] = [
    (mpmath.power, 2), (mpmath.hypot, 2), (math.fmod, 0), (operator.truediv, 0),
]  # fmt: skip


def arguments(dtype: str, columns: int) -> Array:
    """Positive and negative, of all magnitudes and moderate ones; the first only positive for powers."""
    rng = np.random.default_rng(5)
    span = 37 if dtype == "f4" else 300
    moderate, wide = np.exp2(rng.uniform(-7, 5, (columns, 60))), 10.0 ** rng.uniform(-span, span, (columns, 30))
    values = np.concatenate([moderate, wide, [[1.0, 0.5, 2.0, 1 + 2.0**-23, 1e-40]] * columns], axis=1)
    values[:, ::2] *= -1 if columns == 1 else 1
    return values.astype(dtype)


def ordinal(values: Array) -> Array:
    """Places of floats in the order of all floats."""
    bits = values.view("i4" if values.dtype.itemsize == 4 else "i8").astype(object)
    width = 8 * values.dtype.itemsize
    return np.where(bits < 0, -(2 ** (width - 1)) - bits, bits)


@functools.cache
def exact_values(functions: str, dtype: str, columns: int) -> list[Array]:
    """Rounded once to the type; NaN where the function has no real value."""
    table = {"FU": FLOAT_UNARY, "FB": FLOAT_BINARY, "DU": DOUBLE_UNARY, "DB": DOUBLE_BINARY}[functions]

    def rounded(function: Function, operands: Sequence[float]) -> float:
        convert = mpmath.mpf if function is not math.fmod else float
        try:
            value = function(*(convert(v) for v in operands))
        except (ZeroDivisionError, ValueError):
            return math.nan
        if isinstance(value, mpmath.mpc):
            return math.nan
        return round_to(value, dtype)

    rows = arguments(dtype, columns).T.astype(np.float64).tolist()
    return [np.array([rounded(function, row) for row in rows], dtype) for function, _ in table]


def round_to(value: Any, dtype: str) -> float:
    """To nearest even, once: also where the result is subnormal or overflows."""
    bits, least, limit = (24, -149, 128) if dtype == "f4" else (53, -1074, 1024)
    value = mpmath.mpf(value)
    if value == 0:
        return 0.0
    if abs(value) >= mpmath.ldexp(1, limit):
        return math.copysign(math.inf, float(mpmath.sign(value)))
    exponent = max(int(mpmath.floor(mpmath.log(abs(value), 2))) - bits + 1, least)
    scaled = mpmath.nint(mpmath.ldexp(value, -exponent))
    result = mpmath.ldexp(scaled, exponent)
    if abs(result) >= mpmath.ldexp(1, limit):
        return math.copysign(math.inf, float(mpmath.sign(value)))
    return float(result)


def check_accuracy(program: Program, kernel: str, functions: str, dtype: str, columns: int) -> None:
    table = {"FU": FLOAT_UNARY, "FB": FLOAT_BINARY, "DU": DOUBLE_UNARY, "DB": DOUBLE_BINARY}[functions]
    x = arguments(dtype, columns)
    n = x.shape[1]
    out = np.zeros((len(table), n), dtype)
    program.run(kernel, ceil_div(n, 64), 64, [*x, out, n])
    for r, ((_, most), exact) in enumerate(zip(table, exact_values(functions, dtype, columns), strict=True)):
        np.testing.assert_array_equal(np.isnan(out[r]), np.isnan(exact), err_msg=f"result {r}")
        here = ~np.isnan(exact)
        distance = np.abs(ordinal(out[r][here]) - ordinal(exact[here]))
        worst = int(np.argmax(distance))
        assert distance[worst] <= most, (r, x[:, here][:, worst], out[r][here][worst], exact[here][worst])


@builds
@pytest.mark.parametrize(("kernel", "functions", "columns"), [("float_unary", "FU", 1), ("float_binary", "FB", 2)])
def test_accurate_float_functions(build: Build, kernel: str, functions: str, columns: int) -> None:
    check_accuracy(build.load("mathematics.cu"), kernel, functions, "f4", columns)


@builds
@pytest.mark.parametrize(("kernel", "functions", "columns"), [("double_unary", "DU", 1), ("double_binary", "DB", 2)])
def test_double_functions(build: Build, kernel: str, functions: str, columns: int) -> None:
    check_accuracy(build.load("mathematics.cu"), kernel, functions, "f8", columns)


@needs_nvcc
@pytest.mark.parametrize("build", [OPTIMISED, DEBUG], ids=str)
def test_fast_float_functions(build: Build) -> None:
    """-use_fast_math: the approximate instructions, within the bounds that the manual gives for the intrinsics."""
    n = 200
    rng = np.random.default_rng(6)
    x = rng.uniform(-math.pi, math.pi, n).astype(np.float32)
    positive, exponent = np.exp2(rng.uniform(-20, 20, (2, n))).astype(np.float32)
    program = build.load("mathematics.cu", "-use_fast_math")
    unary = np.zeros((len(FLOAT_UNARY), n), np.float32)
    result = program.run("float_unary", 4, 64, [x, unary, n])
    wide = x.astype(np.float64)
    assert np.abs(unary[0] - np.sin(wide)).max() <= 2**-21.41
    assert np.abs(unary[1] - np.cos(wide)).max() <= 2**-21.19
    ulps = np.abs(unary[3] - np.exp(wide)) / np.spacing(np.exp(wide).astype(np.float32))
    assert (ulps <= 2 + np.floor(np.abs(1.173 * wide)) + 0.5).all()
    for name in ("sin", "cos", "ex2", "lg2", "sqrt", "rsqrt", "rcp"):
        assert lanes(result, name, "approx", "ftz") >= n, name
    program.run("float_unary", 4, 64, [positive, unary, n])
    near = (positive >= 0.5) & (positive <= 2)
    error = np.abs(unary[6] - np.log(positive.astype(np.float64)))
    assert (error <= np.where(near, 2**-21.41, 3.5 * np.spacing(np.abs(unary[6])))).all()
    binary = np.zeros((len(FLOAT_BINARY), n), np.float32)
    y = (exponent % 3).astype(np.float32)
    program.run("float_binary", 4, 64, [positive, y, binary, n])
    # 2^(y log2 x): the logarithm's error, the product's rounding and the exponential's two units.
    log = np.log2(positive.astype(np.float64))
    log_error = np.where(near, 2.0**-22, 2.5 * np.spacing(np.abs(log).astype(np.float32)))
    relative = (np.abs(y) * log_error + np.abs(y * log) * 2.0**-24) * math.log(2) + 2.5 * 2.0**-23
    exact = positive.astype(np.float64) ** y
    assert (np.abs(binary[0] - exact) <= relative * exact).all()
    quotient = positive.astype(np.float64) / y
    ulps = np.abs(binary[4] - quotient) / np.spacing(quotient.astype(np.float32))
    assert ulps.max() <= 2.5


# ---- wide integers and doubles ----

DIVISION = np.dtype(
    [(name, "i8") for name in ("quotient", "remainder", "product_high")]
    + [(name, "u8") for name in ("unsigned_quotient", "unsigned_remainder", "unsigned_product_high")]
    + [(name, "i4") for name in ("leading_zeros", "ones", "first_one", "quotient_32")]
)


def wrapped(value: int, bits: int) -> int:
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def truncated(a: int, b: int) -> tuple[int, int]:
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return quotient, a - quotient * b


@builds
def test_wide_integers(build: Build) -> None:
    edges = [0, 1, -1, 2, 3, 10, 2**31 - 1, 2**31, 2**32 - 1, 2**32 + 1, 2**62, 2**63 - 1, -(2**63), -(2**63) + 1]
    rng = np.random.default_rng(7)
    random = [
        int(v) >> int(s) for v, s in zip(rng.integers(-(2**63), 2**63, 100), rng.integers(0, 60, 100), strict=True)
    ]
    # Division by zero has no defined result, nor has that of the least number by -1.
    pairs = [(a, b) for a, b in itertools.product(edges, edges) if b and (a, b) != (-(2**63), -1)]
    pairs += [(a, b) for a, b in zip(random, reversed(random), strict=True) if b]
    x, y = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    out = np.zeros(len(pairs), DIVISION)
    build.load("mathematics.cu").run("divide", ceil_div(len(pairs), 96), 96, [x, y, out, len(pairs)])
    for (a, b), got in zip(pairs, out, strict=True):
        u, v = a % 2**64, b % 2**64
        small, divisor = wrapped(a, 32), wrapped(b, 32) | 1
        bits = f"{u:064b}"
        expected = (
            *truncated(a, b), a * b >> 64, u // v, u % v, u * v >> 64,
            bits.find("1") if u else 64, bits.count("1"), 64 - bits.rfind("1") if u else 0,
            wrapped(truncated(small, divisor)[0], 32),
        )  # fmt: skip
        assert got.item() == expected, (a, b)


@builds
@pytest.mark.parametrize("n", [1, 1000])
def test_double_dot_product(build: Build, n: int) -> None:
    """Each thread's sum in its order, in fused multiply-adds, as exact fractions rounded once a step."""
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n))
    partial = np.zeros(64)
    result = build.load("mathematics.cu").run("double_dot", 2, 32, [x, y, partial, n])
    for thread in range(64):
        total = 0.0
        for a, b in zip(x[thread::64].tolist(), y[thread::64].tolist(), strict=True):
            total = round_to(mpmath.mpf(a) * mpmath.mpf(b) + mpmath.mpf(total), "f8")
        assert partial[thread] == total
    assert result.fma_lanes == {"f64": n}


# ---- the language ----


def interpret(code: Sequence[int]) -> int:
    stack: list[int] = []
    at = 0
    while True:
        instruction, at = code[at], at + 1
        if instruction == 0:
            stack.append(wrapped(code[at], 8))
            at += 1
        elif instruction in (1, 2, 3):
            b, a = stack.pop(), stack.pop()
            stack.append(wrapped((a + b, a - b, a * b)[instruction - 1], 32))
        elif instruction == 4:
            stack[-1], stack[-2] = stack[-2], stack[-1]
        elif instruction == 5:
            stack.append(stack[-1])
        elif instruction == 6:
            stack[-1] = wrapped(-stack[-1], 32)
        elif instruction == 7:
            at += stack.pop() == 0
        else:
            return stack[-1]


def random_code(rng: np.random.Generator) -> list[int]:
    """A program whose stack stays between 1 and 15 entries."""
    code, depth = [0, int(rng.integers(256))], 1
    for _ in range(rng.integers(1, 60)):
        instruction = int(rng.integers(8))
        if instruction in (0, 5) and depth < 15:
            depth += 1
            code += [0, int(rng.integers(256))] if instruction == 0 else [5]
        elif instruction in (1, 2, 3) and depth > 1:
            depth -= 1
            code.append(instruction)
        elif instruction == 7 and depth > 1:
            depth -= 1
            code += [7, 6]  # what may be skipped changes no depth
        elif instruction == 6 or (instruction == 4 and depth > 1):
            code.append(instruction)
    return [*code, 8]


@builds
@pytest.mark.parametrize("n", [1, 100])
def test_interpreter(build: Build, n: int) -> None:
    """Every thread another program: a switch in a divergent loop."""
    rng = np.random.default_rng(n)
    programs = [random_code(rng) for _ in range(n)]
    code = np.concatenate(programs).astype(np.uint8)
    starts = np.array([0, *itertools.accumulate(map(len, programs))][:-1], np.int32)
    out = np.zeros(n, np.int32)
    build.load("features.cu").run("interpret", ceil_div(n, 64), 64, [code, starts, out, n])
    assert out.tolist() == [interpret(program) for program in programs]


@builds
def test_function_pointers(build: Build) -> None:
    """From a table in memory, different ones in a warp; and stored by one launch for the next."""
    functions: list[Callable[[int, int], int]] = [operator.add, operator.sub, operator.mul, min]
    n = 70
    rng = np.random.default_rng(8)
    values, kind = rng.integers(-9, 10, (n, 8)), rng.integers(0, 4, n).astype(np.int32)
    expected = [functools.reduce(functions[k], row) for k, row in zip(kind, values.tolist(), strict=True)]
    for seed in (None, *SEEDS):
        module = ptx.Machine(seed=seed).load(build.load("features.cu").text)
        out, used = np.zeros(n, np.int64), np.zeros(n, np.uint64)
        results = [module.launch("fold", 3, 32, [values, kind, out, used, n])]
        assert out.tolist() == expected
        results.append(module.launch("apply_again", 3, 32, [used, out, n]))
        assert out.tolist() == [functions[k](value, value) for k, value in zip(kind, expected, strict=True)]
        assert not [result.findings for result in results if result.findings]


@builds
def test_virtual_functions(build: Build) -> None:
    """Objects that one launch makes with new, another calls and a third deletes."""
    n = 50
    module = ptx.Machine().load(build.load("features.cu").text)
    shapes, area, corners = np.zeros(n, np.uint64), np.zeros(n), np.zeros(n, np.int32)
    assert not module.launch("make_shapes", 2, 32, [shapes, n]).findings
    result = module.launch("measure_shapes", 2, 32, [shapes, area, corners, n])
    assert not result.findings, result.findings
    assert area.tolist() == [(3.0 * i * i, float(i * i), 2.0 * i)[i % 3] for i in range(n)]
    assert corners.tolist() == [(0, 4, i)[i % 3] for i in range(n)]
    assert not module.launch("delete_shapes", 2, 32, [shapes, n]).findings
    again = module.launch("measure_shapes", 2, 32, [shapes, area, corners, n])
    assert "bounds" in kinds(again)


def grow_tree(rng: np.random.Generator, nodes: list[tuple[int, int, int]], depth: int) -> tuple[int, int]:
    """Adds a tree to the list; its root and its value."""
    if depth == 0 or rng.random() < 0.2:
        value = int(rng.integers(-50, 50))
        nodes.append((value, -1, -1))
        return len(nodes) - 1, value
    (left, a), (right, b) = (grow_tree(rng, nodes, depth - 1) for _ in range(2))
    kind = int(rng.integers(3))
    nodes.append((kind, left, right))
    return len(nodes) - 1, (a + b, a - b, max(a, b))[kind]


@builds
def test_recursion_over_trees(build: Build) -> None:
    rng = np.random.default_rng(9)
    nodes: list[tuple[int, int, int]] = []
    trees = [grow_tree(rng, nodes, i % 9) for i in range(75)]
    roots = np.array([root for root, _ in trees], np.int32)
    out = np.zeros(75, np.int32)
    program = build.load("features.cu")
    program.run("evaluate_trees", 2, 50, [np.array(nodes, np.int32), roots, out, 75])
    assert out.tolist() == [value for _, value in trees]


@builds
def test_recursion_over_local_memory(build: Build) -> None:
    values = np.random.default_rng(10).integers(-300, 300, (45, 24)).astype(np.int16)
    out = np.zeros_like(values)
    build.load("features.cu").run("sort_rows", 2, 32, [values, out, 45])
    np.testing.assert_array_equal(out, np.sort(values, axis=1))


class Camera(ctypes.Structure):
    _fields_ = [
        ("view", ctypes.c_float * 12),
        ("zoom", ctypes.c_double),
        ("shift", ctypes.c_short * 3),
        ("mirror", ctypes.c_char),
        ("out", ctypes.c_uint64),
    ]


@builds
@pytest.mark.parametrize("mirror", [0, 1])
def test_structures_by_value(build: Build, mirror: int) -> None:
    """As a parameter, to a function and from it; whole numbers, so that no order rounds."""
    rng = np.random.default_rng(11)
    view, points = rng.integers(-4, 5, (3, 4)), rng.integers(-9, 10, (40, 3))
    out = np.zeros((40, 3), np.float32)
    camera = Camera(
        (ctypes.c_float * 12)(*view.ravel()), 0.5, (ctypes.c_short * 3)(-7, 0, 300), mirror, out.ctypes.data
    )
    arrays = [points.astype(np.float32)]
    build.load("features.cu").run("project", 2, 32, [bytes(camera), *arrays, 40], memory=[out])
    square = np.vstack([view, [0, 0, 0, 1]])
    moved = (np.c_[points, np.ones(40)] @ (square @ square).T)[:, :3] * 0.5 * [-1 if mirror else 1, 1, 1]
    np.testing.assert_array_equal(out, moved + np.array([-7, 0, 300]))


@builds
def test_module_variables(build: Build) -> None:
    """Constants that the host sets, and variables that add up over launches."""
    n = 40
    x = np.arange(n) / 8.0
    for seed in (None, *SEEDS):
        module = ptx.Machine(seed=seed).load(build.load("features.cu").text)
        out = np.zeros(n)
        module.launch("polynomial", 2, 32, [x, out, n])
        np.testing.assert_array_equal(out, 2.0)  # as initialised: 1, and nothing more
        constants = module.variable("coefficients").view(np.float64)
        constants[:] = [3, 0, -2, 0.5, 0, 1]
        result = module.launch("polynomial", 2, 32, [x, out, n])
        assert not result.findings, result.findings
        np.testing.assert_array_equal(out, 2 * np.polyval(constants[::-1], x))  # exact in 53 bits
        assert int(module.variable("calls").view(np.uint64)[0]) == 100 + 2 * n
        sums = [2 * sum(range(k, n, 8)) for k in range(8)]
        assert module.variable("seen").view(np.int32).tolist() == sums


@builds
@pytest.mark.parametrize("block", [1, 33, 100])
def test_dynamic_shared_memory_in_parts(build: Build, block: int) -> None:
    values = np.random.default_rng(12).integers(-1000, 1000, (2, block)).astype(np.int32)
    out = np.zeros((2, block))
    build.load("features.cu").run("shared_parts", 2, block, [values, out], shared_bytes=13 * block)
    other = (np.arange(block) * 7 + 3) % block
    expected = values[:, other] / 4 + values[:, (other + 1) % block] + values[:, (other + 2) % block].astype(np.uint8)
    np.testing.assert_array_equal(out, expected)


# ---- output ----


def report_lines(i: int, value: int, real: float) -> list[str]:
    bits, wide = value % 2**32, value * 10**10
    wide_bits = wide % 2**64
    return [
        f"{i}|{value:5d}|{value:<6d}|{value:+d}|{bits}|{bits:x}|{bits:08X}|{bits:o}|{chr(97 + i % 26)}"
        f"|{'negative' if value < 0 else 'natural'}",
        f"{wide}|{wide_bits}|{wide_bits:x}|{real:f}|{real:.3e}|{real:10.2f}|{real:g}|{i:{i % 5 + 1}d}",
    ]


@builds
@pytest.mark.parametrize(("n", "grid", "block"), [(0, 1, 1), (1, 1, 32), (70, 3, 32)])
def test_printf(build: Build, n: int, grid: int, block: int) -> None:
    values = np.random.default_rng(13).integers(-(10**6), 10**6, max(n, 1)).astype(np.int32)
    real = np.random.default_rng(14).standard_normal(max(n, 1)) * 1000
    expected = ["no arguments, 100%"]
    for i in range(n):
        expected += report_lines(i, int(values[i]), float(real[i]))
    result = build.load("output.cu").run("report", grid, block, [values, real, n])
    assert sorted(result.output.splitlines()) == sorted(expected)


@builds
def test_assert(build: Build) -> None:
    values = np.arange(100, dtype=np.int32)
    program = build.load("output.cu")
    assert not program.run("check_limit", 2, 64, [values, 100, 100]).stopped
    result = ptx.Machine(threads=1).load(program.text).launch("check_limit", 2, 64, [values, 77, 100])
    assert result.stopped
    (finding,) = [finding for finding in result.findings if finding.kind == "trap"]
    assert (finding.block, finding.thread) == ((1, 0, 0), (77 - 64, 0, 0))
    for part in ("in[i] < limit", "kernel.cu", "check_limit"):
        assert part in finding.message


# ---- waiting ----

ACCOUNT = np.dtype([("count", "u4"), ("last", "u4"), ("sum", "u8")])


def is_last_of(account: Array, threads: int) -> bool:
    return account["count"][0] == threads and account["sum"][0] == threads * (threads - 1) // 2


@builds
@pytest.mark.parametrize("kernel", ["spin_lock", "polite_lock"])
@pytest.mark.parametrize(("grid", "block"), [(1, 1), (3, 40), (1, 96)])
def test_locks(build: Build, kernel: str, grid: int, block: int) -> None:
    """No deposit is lost, whoever comes first, and nobody waits for ever: lanes and warps take turns."""
    for seed in (None, *SEEDS):
        lock, account = np.zeros(1, np.uint32), np.zeros(1, ACCOUNT)
        module = ptx.Machine(seed=seed).load(build.load("waiting.cu").text)
        result = module.launch(kernel, grid, block, [lock, account])
        assert not result.findings, result.findings
        assert is_last_of(account, grid * block)
        assert lock[0] == 0


@builds
def test_ticket_lock(build: Build) -> None:
    blocks = 12
    for seed in (None, *SEEDS):
        tickets, turn, account = np.zeros(1, np.uint32), np.zeros(1, np.uint32), np.zeros(1, ACCOUNT)
        order = np.zeros(blocks, np.uint32)
        module = ptx.Machine(seed=seed).load(build.load("waiting.cu").text)
        result = module.launch("ticket_lock", blocks, 32, [tickets, turn, account, order])
        assert not result.findings, result.findings
        assert is_last_of(account, blocks)
        assert sorted(order.tolist()) == list(range(blocks))
        assert account["last"][0] == order[-1]


@builds
@pytest.mark.parametrize(("root", "grid", "block"), [(1, 1, 32), (37, 2, 64), (100, 3, 33)])
def test_work_queue(build: Build, root: int, grid: int, block: int) -> None:
    expected = np.zeros(root + 1, np.uint32)

    def visit(number: int) -> None:
        expected[number] += 1
        if number > 1:
            visit(number // 2)
            if number % 2:
                visit(number // 2 + 1)

    visit(root)
    room = int(expected.sum()) + grid * block  # every thread takes one place that stays empty
    items, written = np.zeros(room, np.int32), np.zeros(room, np.int32)
    items[0], written[0] = root, 1
    counters = [np.array([value], np.int32) for value in (0, 1, 1)]
    for seed in (None, *SEEDS):
        arrays = [array.copy() for array in (items, written, *counters)]
        taken = np.zeros(root + 1, np.uint32)
        queue = np.array([array.ctypes.data for array in arrays], np.uint64).tobytes()
        module = ptx.Machine(seed=seed).load(build.load("waiting.cu").text)
        result = module.launch("drain", grid, block, [queue, taken], memory=arrays)
        assert not result.findings, result.findings
        np.testing.assert_array_equal(taken, expected)
        assert arrays[-1][0] == 0


@builds
@pytest.mark.parametrize("blocks", [1, 7, 40])
def test_blocks_of_a_cooperative_launch_may_wait_for_each_other(build: Build, blocks: int) -> None:
    arrived, places, sums = np.zeros(1, np.uint32), np.zeros(blocks, np.int32), np.zeros(blocks, np.int32)
    program = build.load("waiting.cu")
    program.run("meet", blocks, 32, [arrived, places, sums], cooperative=True)
    assert (sums == blocks * (blocks + 1) // 2).all()


@needs_nvcc
def test_blocks_of_other_launches_may_not() -> None:
    """The first block waits for one that begins only after it has ended: not a dead-lock of the machine's, but one of
    the program, which the budget of instructions ends.
    """
    arrays = [np.zeros(n, np.int32) for n in (1, 3, 3)]
    module = ptx.Machine(threads=1, budget=100_000).load(OPTIMISED.load("waiting.cu").text)
    result = module.launch("meet", 3, 32, arrays)
    assert result.stopped
    assert kinds(result) == {"runaway"}


# ---- random numbers ----


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [second >> 32 ^ c[1] ^ k0, second % 2**32, first >> 32 ^ c[3] ^ k1, first % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


# Published with the generator (Random123, kat_vectors): counter, key, output.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@builds
def test_philox(build: Build) -> None:
    rng = np.random.default_rng(15)
    counters = np.concatenate([[c for c, _, _ in KNOWN], rng.integers(0, 2**32, (60, 4))]).astype(np.uint32)
    keys = np.concatenate([[k for _, k, _ in KNOWN], rng.integers(0, 2**32, (60, 2))]).astype(np.uint32)
    out = np.zeros((63, 4), np.uint32)
    storage = np.zeros(4 * 64 * 2, np.uint32)  # uint4 lies on multiples of 16 bytes
    start = -storage.ctypes.data % 16 // 4
    aligned = storage[start : start + counters.size].reshape(counters.shape)
    aligned[...] = counters
    target = storage[start + 256 : start + 256 + out.size].reshape(out.shape)
    build.load("random.cu").run("generate", 2, 32, [aligned, keys, target, 63])
    assert target[:3].tolist() == [o for _, _, o in KNOWN]
    for counter, key, got in zip(counters.tolist(), keys.tolist(), target.tolist(), strict=True):
        assert got == philox(counter, key)


@builds
def test_points_in_a_circle(build: Build) -> None:
    seed, draws, threads = 0x123456789ABCDEF, 5, 64
    inside = np.zeros(1, np.uint64)
    build.load("random.cu").run("count_in_circle", 2, 32, [seed, inside, draws])
    expected = 0
    for thread, draw in itertools.product(range(threads), range(draws)):
        bits = np.array(philox([thread, draw, 0, 0], [seed % 2**32, seed >> 32]), np.uint32)
        x, y = ((bits >> 8) * np.float32(2.0**-24)).astype(np.float32).reshape(2, 2).T
        expected += int((x * x + y * y < 1).sum())
    assert inside[0] == expected
