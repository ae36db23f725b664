"""Cooperative groups in CUDA: tiles, coalesced and labeled groups, collectives, and the barrier of a whole grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import kinds
from tests.ptxvm.programs import OPTIMISED, Build, builds, lanes

Array = np.ndarray[Any, Any]
SOURCE = "groups.cu"


def left_out(build: Build) -> list[str]:
    """Without optimisation the groups' bit-fields and padding are read before they are first written."""
    return ["uninitialised"] if build.name in ("G", "O0", "O1") else []


def integers(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-1000, 1000, count).astype(np.int32)


@builds
@pytest.mark.parametrize(("kernel", "size"), [("tiles_of_4", 4), ("tiles_of_32", 32)])
@pytest.mark.parametrize("block", [32, 96])
def test_tile_collectives(build: Build, kernel: str, size: int, block: int) -> None:
    values = integers(block)
    out = np.zeros((block, 5), np.int32)
    build.load(SOURCE).run(kernel, 1, block, [values, out], without=left_out(build))
    tiles = values.reshape(-1, size)
    scan = tiles.cumsum(axis=1)
    columns = [
        np.broadcast_to(tiles.sum(axis=1, keepdims=True), tiles.shape),
        np.broadcast_to(tiles.max(axis=1, keepdims=True), tiles.shape),
        scan,
        scan - tiles,
        np.arange(block).reshape(-1, size) // size * 1000 + block // size,
    ]
    np.testing.assert_array_equal(out, np.stack([column.ravel() for column in columns], axis=1))


@builds
@pytest.mark.parametrize("size", [1, 2, 8, 32])
def test_dynamic_tiles(build: Build, size: int) -> None:
    values = integers(96)
    out = np.zeros(96, np.int32)
    build.load(SOURCE).run("dynamic_tiles", 1, 96, [values, out, size], without=left_out(build))
    np.testing.assert_array_equal(out, np.repeat(values.reshape(-1, size).sum(axis=1), size))


@builds
@pytest.mark.parametrize(("n", "block"), [(1, 32), (500, 64), (100, 50)])
def test_coalesced_counters(build: Build, n: int, block: int) -> None:
    """Every element of a kind gets a place of its own; which one depends on the order of warps."""
    values = np.abs(integers(n))
    grid = -(-n // block)
    for seed in (None, 1, 2):
        out, slot = np.zeros(3, np.int32), np.zeros(n, np.int32)
        module = ptx.Machine(seed=seed).load(build.load(SOURCE).text)
        result = module.launch("coalesced_counters", grid, block, [values, out, slot, n])
        assert kinds(result) <= set(left_out(build)), result.findings
        np.testing.assert_array_equal(out, np.bincount(values % 3, minlength=3))
        for kind in range(3):
            np.testing.assert_array_equal(np.sort(slot[values % 3 == kind]), np.arange(out[kind]))
        # One atomic for each kind that a warp holds.
        thread = np.arange(n)
        warps = {(b, t // 32, k) for b, t, k in zip(thread // block, thread % block, values % 3, strict=True)}
        assert lanes(result, "atom") == len(warps)


@builds
@pytest.mark.parametrize("labels", [1, 3, 32])
def test_partitions(build: Build, labels: int) -> None:
    values = integers(64)
    label = np.random.default_rng(labels).integers(0, labels, 64).astype(np.int32)
    out, parity = np.zeros(64, np.int32), np.zeros(64, np.int32)
    build.load(SOURCE).run("partitions", 1, 64, [values, label, out, parity], without=left_out(build))
    for i in range(64):
        warp = slice(i // 32 * 32, i // 32 * 32 + 32)
        assert out[i] == values[warp][label[warp] == label[i]].sum()
        assert parity[i] == values[warp][values[warp] % 2 == values[i] % 2].sum()


@builds
@pytest.mark.parametrize("n", [1, 256, 700])
def test_staged_copy(build: Build, n: int) -> None:
    values = integers(n)
    out = np.zeros(n, np.int32)
    build.load(SOURCE).run("staged_copy", 1, 96, [values, out, n], without=left_out(build))
    np.testing.assert_array_equal(out, np.concatenate([values[i : i + 256][::-1] for i in range(0, n, 256)]))


@builds
@pytest.mark.parametrize(("grid", "block"), [(1, 1), (5, 33), ((3, 2, 2), 64)])
def test_grid_barrier(build: Build, grid: Any, block: int) -> None:
    count = int(np.prod(grid)) * block
    first, second = integers(count), np.zeros(count, np.int32)
    expected = first.copy()
    for _ in range(3):
        expected = expected + np.roll(expected, -1)
    result = build.load(SOURCE).run(
        "grid_steps", grid, block, [first, second, 3], cooperative=True, without=left_out(build)
    )
    np.testing.assert_array_equal(second, expected)
    assert result.barriers == 3 * 2 * int(np.prod(grid))


@builds
def test_grid_barrier_needs_a_cooperative_launch(build: Build) -> None:
    module = ptx.Machine().load(build.load(SOURCE).text)
    result = module.launch("grid_steps", 2, 32, [integers(64), integers(64), 1])
    assert result.stopped
    assert kinds(result) - set(left_out(build)) == {"trap"}


def test_cooperative_grids_have_a_limit() -> None:
    """A device holds them whole."""
    module = ptx.Machine().load(OPTIMISED.load(SOURCE).text)
    with pytest.raises(ptx.PtxError, match="cooperative"):
        module.launch("grid_steps", 1025, 32, [None, None, 0], cooperative=True)


@builds
def test_tiles_of_several_warps(build: Build) -> None:
    """They order their accesses by acquire and release, which the check for races does not follow."""
    values = integers(256)
    out = np.zeros(256, np.int32)
    build.load(SOURCE).run("tiles_of_64", 1, 256, [values, out], without=[*left_out(build), "race"])
    np.testing.assert_array_equal(out, np.repeat(values.reshape(-1, 64).sum(axis=1), 64))
