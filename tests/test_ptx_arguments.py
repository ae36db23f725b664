"""Arguments as text: held against ctypes' layout of structures and numpy's own arrays."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import numpy as np
import pytest

from flopcuda.ptx_arguments import TYPES, parse_arguments


def parse(text: str) -> object:
    return parse_arguments([text]).values[0]


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_of_the_width_that_its_name_says(name: str) -> None:
    value = parse(f"{name}:3")
    assert isinstance(value, np.generic)
    assert value == 3
    assert 8 * value.itemsize == int(name[1:])
    assert {"i": np.signedinteger, "u": np.unsignedinteger, "f": np.floating}[name[0]] in type(value).__mro__


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-5", -5), ("0x10", 16), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("inf", math.inf), ("null", None)],
)
def test_a_number_without_a_type_is_left_to_the_parameter(text: str, value: object) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_numbers_reach_their_limits() -> None:
    assert parse("i8:-128") == -128
    assert parse("u64:0xffffffffffffffff") == 2**64 - 1
    assert np.isnan(parse("f32:nan"))  # type: ignore[call-overload]
    assert parse("f16:1e9") == np.inf


@pytest.mark.parametrize(
    ("text", "array"),
    [
        ("zeros:f32:5", np.zeros(5, np.float32)),
        ("ones:i64:2x3", np.ones((2, 3), np.int64)),
        ("arange:f16:4x2", np.array([[0, 1], [2, 3], [4, 5], [6, 7]], np.float16)),
        ("zeros:u8:0", np.zeros(0, np.uint8)),
    ],
)
def test_arrays(text: str, array: np.ndarray) -> None:
    arguments = parse_arguments(["1", text])
    assert arguments.values[1] is arguments.arrays["1"]
    np.testing.assert_array_equal(arguments.arrays["1"], array, strict=True)


def test_random_arrays_are_of_their_type_differ_and_repeat() -> None:
    texts = ["random:f32:4096", "random:f32:4096", "random:i8:4096"]
    first, second, integers = parse_arguments(texts).values
    assert not np.array_equal(first, second)
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.1
    assert (integers.min(), integers.max()) == (-128, 127)
    np.testing.assert_array_equal(parse_arguments(texts).values[1], second)


def test_a_file_is_read_in_the_order_of_its_indices(tmp_path: Path) -> None:
    stored = np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3))
    np.save(tmp_path / "a.npy", stored)
    array = parse_arguments([str(tmp_path / "a.npy")]).arrays["0"]
    np.testing.assert_array_equal(array, stored, strict=True)
    assert array.flags.c_contiguous


@pytest.mark.parametrize("text", ["random:f64:3", "zeros:u8:1", "arange:i32:1000"])
def test_arrays_lie_where_cuda_would_put_them(text: str) -> None:
    assert parse_arguments([text]).arrays["0"].ctypes.data % 256 == 0


def test_a_structure_has_the_layout_of_c() -> None:
    class Fields(ctypes.Structure):
        _fields_ = (
            ("small", ctypes.c_int8),
            ("array", ctypes.c_void_p),
            ("half", ctypes.c_uint16),
            ("number", ctypes.c_float),
            ("nothing", ctypes.c_void_p),
            ("last", ctypes.c_uint8),
        )

    arguments = parse_arguments(["7", "struct:i8:-3,arange:f32:8,u16:9,f32:2.5,null,u8:1"])
    array = arguments.arrays["1.1"]
    fields = Fields.from_buffer_copy(arguments.values[1])
    assert len(arguments.values[1]) == ctypes.sizeof(Fields)
    assert (fields.small, fields.array, fields.half, fields.number) == (-3, array.ctypes.data, 9, 2.5)
    assert (fields.nothing, fields.last) == (None, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no number"),
        ("five", "is no number"),
        ("i32:five", "'five' is no whole number"),
        ("i32:1.5", "'1.5' is no whole number"),
        ("f32:x", "'x' is no number"),
        ("u8:256", "256 does not fit in 8 bits"),
        ("u8:-1", "-1 does not fit"),
        ("i128:1", "is no number"),
        ("0xyz", "is no whole number"),
        ("1.2.3", "is no number"),
        ("zeros:f32", "looks like zeros:f32:1024"),
        ("zeros:f32:-4", "looks like zeros:f32:1024"),
        ("zeros:f33:4", "no type 'f33'; there are"),
        ("struct:5,i32:1", "field '5' of a structure needs a type"),
        ("struct:", "is no number"),
    ],
)
def test_what_is_no_argument_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(text)


def test_a_missing_file_and_one_that_is_no_array(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parse(str(tmp_path / "missing.npy"))
    broken = tmp_path / "broken.npy"
    broken.write_bytes(b"not an array")
    with pytest.raises(ValueError, match="broken"):
        parse(str(broken))
