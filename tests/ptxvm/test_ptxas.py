"""The machine takes no instruction that NVIDIA's assembler refuses: examples of every opcode, and damaged ones.

The order of modifiers is the one thing that the machine does not look at.
"""

from __future__ import annotations

import itertools
import random
import re

import pytest

from flopcuda import _ptxvm, ptx
from tests.ptxvm.assembler import complaint, needs_ptxas, refused
from tests.ptxvm.instructions import INSTRUCTIONS, module

GUARD, OPCODE, MODIFIERS, OPERANDS = range(4)
Parts = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def split_operands(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r",(?![^{\[(]*[}\])])", text) if part.strip())


def split(text: str) -> Parts:
    match = re.fullmatch(r"(@\S+ )?(\w+)((?:\.[\w:]+)*)\s*(.*);", text)
    assert match, text
    return match[1] or "", match[2], tuple(match[3].split(".")[1:]), split_operands(match[4])


def join(parts: Parts) -> str:
    guard, opcode, modifiers, operands = parts
    return f"{guard}{'.'.join((opcode, *modifiers))} {', '.join(operands)}".strip() + ";"


WORDS = sorted(
    {word for text in INSTRUCTIONS for word in split(text)[MODIFIERS]}
    | {"foo", "v3", "v8", "rs", "tex", "reg", "equ", "ls", "e4m3", "b128", "tf32", "cluster", "level::cache_hint"}
)
REGISTERS = ("%r9", "%rd9", "%f9", "%d8", "%h8", "%p8", "!%p8", "%u8", "%l8", "%tid.x", "%missing", "_", "%r9+4")
CONSTANTS = ("1", "-1", "~5", "9999999999", "0f3F800000", "1.5", "0d3FF0000000000000", "(1+2)*3")
SYMBOLS = ("in_global", "in_shared", "in_const", "in_local", "pointer", "passed", "callee", "number", "after")
ADDRESSES = tuple(f"[{base}]" for base in (*REGISTERS, *SYMBOLS, "16", "in_shared+4", "%rd9+-8", "%rd9-8"))
GROUPS = ("{%r9,%r8}", "{%r9}", "{%f9,%f8}", "{%h8,%h7}", "%r9|%p8", "()")
VALUES = (*REGISTERS, *CONSTANTS, *SYMBOLS, *ADDRESSES, *GROUPS)


def mutant(parts: Parts, rng: random.Random) -> str:
    """One modifier or operand left out, put in, replaced or given twice."""
    guard, opcode, modifiers, operands = parts
    changed: list[str] = list(modifiers)
    values: list[str] = list(operands)
    of_operands = bool(values) and rng.random() < 0.4
    sequence, vocabulary = (values, VALUES) if of_operands else (changed, WORDS)
    where = rng.randrange(len(sequence) + 1)
    new = rng.choice(sequence) if sequence and rng.random() < 0.15 else rng.choice(vocabulary)
    action = rng.choice(("leave out", "put in", "replace", "replace"))
    sequence[where : where + (action != "put in")] = [] if action == "leave out" else [new]
    return join((guard, opcode, tuple(changed), tuple(values)))


def takes(text: str) -> bool:
    try:
        ptx.Machine().load(module(text))
    except ptx.PtxError:
        return False
    return True


def in_some_order(text: str) -> bool:
    """Whether ptxas takes the instruction with its modifiers in another order."""
    guard, opcode, modifiers, operands = split(text)
    orders = [join((guard, opcode, order, operands)) for order in set(itertools.permutations(modifiers))]
    return len(refused(orders)) < len(orders)


@pytest.mark.parametrize("text", INSTRUCTIONS)
def test_machine_takes_the_example(text: str) -> None:
    ptx.Machine().load(module(text))


def test_every_opcode_has_an_example() -> None:
    assert {split(text)[OPCODE] for text in INSTRUCTIONS} == set(_ptxvm.opcodes)


@needs_ptxas
def test_assembler_takes_the_examples() -> None:
    assert complaint(module(*INSTRUCTIONS)) == ""


@needs_ptxas
@pytest.mark.parametrize(
    ("count", "seed"),
    [pytest.param(2000, 0), *(pytest.param(8000, seed, marks=pytest.mark.slow) for seed in range(1, 5))],
)
def test_what_the_assembler_refuses(count: int, seed: int) -> None:
    rng = random.Random(seed)
    texts = sorted({mutant(split(rng.choice(INSTRUCTIONS)), rng) for _ in range(count)} - set(INSTRUCTIONS))
    reasons = refused(texts)
    assert len(reasons) > len(texts) / 2
    taken = [text for text in texts if text in reasons and takes(text) and not in_some_order(text)]
    assert not taken, [(text, reasons[text]) for text in taken]
