"""A kernel's arguments as text: ``i32:5``, ``f32:1.5``, ``zeros:f32:1024``, ``weights.npy``, ``struct:i32:5,f32:1``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

# What cudaMalloc promises, in bytes.
_ALIGNMENT = 256

#: Types of numbers and of arrays' elements.
TYPES: dict[str, np.dtype[Any]] = {
    f"{letter}{8 * size}": np.dtype(f"{code}{size}")
    for letter, code, sizes in (("i", "i", (1, 2, 4, 8)), ("u", "u", (1, 2, 4, 8)), ("f", "f", (2, 4, 8)))
    for size in sizes
}


def _arange(shape: Shape, dtype: np.dtype[Any], generator: np.random.Generator) -> Array:
    return np.arange(np.prod(shape)).astype(dtype).reshape(shape)


def _random(shape: Shape, dtype: np.dtype[Any], generator: np.random.Generator) -> Array:
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)


#: Arrays by the word in front of their type. Random numbers are standard normal, or any integer of the type.
ARRAYS: dict[str, Callable[[Shape, np.dtype[Any], np.random.Generator], Array]] = {
    "zeros": lambda shape, dtype, generator: np.zeros(shape, dtype),
    "ones": lambda shape, dtype, generator: np.ones(shape, dtype),
    "arange": _arange,
    "random": _random,
}


@dataclass
class Arguments:
    """What ``flopcuda.ptx.Module.launch`` takes, and the arrays among it.

    Attributes:
        values: one for each parameter.
        arrays: by the place of the argument: "2", or "2.1" for a field of a structure.
    """

    values: list[Any] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)


def parse_arguments(texts: Sequence[str]) -> Arguments:
    """Arguments from their texts; random arrays are the same at every call.

    Raises:
        ValueError: a text is no argument; names it and what it should look like.
        OSError: a file cannot be read.
    """
    arguments = Arguments()
    generator = np.random.default_rng(0)
    for index, text in enumerate(texts):
        arguments.values.append(_parse(text, str(index), arguments.arrays, generator))
    return arguments


def _parse(text: str, place: str, arrays: dict[str, Array], generator: np.random.Generator) -> Any:
    """A number, None, an array, or a structure's bytes. Arrays are entered by their place."""
    word, _, rest = text.partition(":")
    if word == "struct" and rest:
        return _parse_structure(rest, place, arrays, generator)
    if word in ARRAYS or text.endswith(".npy"):
        arrays[place] = _place(_load_array(text) if text.endswith(".npy") else _make_array(text, generator))
        return arrays[place]
    if word in TYPES:
        return _parse_number(rest, TYPES[word], text)
    if text == "null":
        return None
    if re.match(r"[-+.\d]|inf|nan", text):
        return _number(text, text, is_float=not re.fullmatch(r"[-+]?(\d+|0[xX]\w+)", text))  # of the parameter's type
    raise ValueError(
        f"argument {text!r} is no number (5, i32:5, f32:1.5), null, array (zeros:f32:1024; {', '.join(ARRAYS)}), "
        "file that ends in .npy, or structure (struct:i32:5,f32:1.5)"
    )


def _number(number: str, text: str, is_float: bool) -> int | float:
    try:
        return float(number) if is_float else int(number, 0)
    except ValueError:
        raise ValueError(f"argument {text!r}: {number!r} is no {'' if is_float else 'whole '}number") from None


def _parse_number(number: str, dtype: np.dtype[Any], text: str) -> Any:
    value = _number(number, text, dtype.kind == "f")
    if dtype.kind != "f" and not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        raise ValueError(f"argument {text!r}: {value} does not fit in {8 * dtype.itemsize} bits")
    with np.errstate(over="ignore"):
        return dtype.type(value)


def _make_array(text: str, generator: np.random.Generator) -> Array:
    match = re.fullmatch(r"(\w+):(\w+):(\d+(?:x\d+)*)", text)
    if not match:
        raise ValueError(f"argument {text!r} is no array; one looks like zeros:f32:1024 or random:f32:32x32")
    maker, type_name, sizes = match.groups()
    if type_name not in TYPES:
        raise ValueError(f"argument {text!r}: no type {type_name!r}; there are {', '.join(TYPES)}")
    return ARRAYS[maker](tuple(int(size) for size in sizes.split("x")), TYPES[type_name], generator)


def _load_array(file: str) -> Array:
    try:
        return np.asarray(np.load(file, allow_pickle=False))
    except ValueError as error:
        raise ValueError(f"argument {file!r}: {error}") from None


def _place(array: Array) -> Array:
    """A contiguous copy where cudaMalloc would put it, so that a warp touches as many sectors as on a device."""
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    placed = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    placed[...] = array
    return placed


def _parse_structure(fields: str, place: str, arrays: dict[str, Array], generator: np.random.Generator) -> bytes:
    """The bytes of a structure as C++ lays it out: each field at a multiple of its size; an array is its address."""
    block = bytearray()
    alignment = 1
    for index, text in enumerate(fields.split(",")):
        value = _parse(text, f"{place}.{index}", arrays, generator)
        if isinstance(value, np.ndarray):
            value = np.uint64(value.ctypes.data)
        elif value is None:
            value = np.uint64(0)
        elif not isinstance(value, np.generic):
            raise ValueError(f"field {text!r} of a structure needs a type, as in i32:5")
        alignment = max(alignment, value.itemsize)
        block += bytes(-len(block) % value.itemsize) + value.tobytes()
    return bytes(block + bytes(-len(block) % alignment))
