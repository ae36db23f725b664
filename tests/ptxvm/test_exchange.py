"""shfl, vote, match, redux, elect, activemask: exchanges between the lanes of a warp, against brute force.

An exchange is a function from the values of the lanes that take part to a result for each of them. Every one of them is
placed in programs where the lanes of a warp fall into groups that exchange separately.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm import reference as ref
from tests.ptxvm.harness import compile_cuda, kernel, kinds, needs_nvcc, run_instruction

LANES = 32
WARPS = 64
GROUPS = 4
MASK = 0xFFFFFFFF


def random_bits(rng: np.random.Generator, warps: int = WARPS, width: int = 32) -> np.ndarray:
    """Words of the whole range in one half of the warps, few different ones in the other."""
    words = rng.integers(0, 2**64, (warps, LANES), dtype=np.uint64)
    few = rng.integers(0, 3, (warps, LANES)).astype(np.uint64) << np.uint64(width - 2)
    words[::2] = few[::2]
    words[::8] = words[::8, :1]  # all lanes equal
    return words.ravel().astype(np.uint32 if width == 32 else np.uint64)


def mask_of(lanes: np.ndarray) -> np.ndarray:
    """For each warp the mask of its lanes that are set."""
    return (lanes.reshape(-1, LANES).astype(np.uint64) << np.arange(LANES, dtype=np.uint64)).sum(axis=1)


def masks_of_groups(group: np.ndarray) -> np.ndarray:
    """For each lane the mask of those of its warp that have its group."""
    masks = [np.where(group == g, mask_of(group == g)[:, None], 0) for g in set(group.ravel().tolist())]
    return np.sum(masks, axis=0).ravel().astype(np.uint32)


# ---- shfl ----


def shuffled(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The lane read, and the predicate: the ISA's rule for any segment mask, also one that is no power of two."""
    offset, clamp, segment = b % 32, c % 32, c // 256 % 32
    low = lane & segment
    limit = low | (clamp & ~segment)
    source = {"up": lane - offset, "down": lane + offset, "bfly": lane ^ offset, "idx": low | (offset & ~segment)}[mode]
    inside = source >= limit if mode == "up" else source <= limit
    return (source, True) if inside else (lane, False)


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffle_operands(mode: str) -> None:
    """Every lane with an offset and a clamp of its own; bits that do not count are set too."""
    rng = np.random.default_rng(1)
    values, b, c = (rng.integers(0, 2**32, WARPS * LANES, dtype=np.uint32) for _ in range(3))
    got = run_instruction(
        f"shfl.sync.{mode}.b32 %t0|%p0, %x0, %x1, %x2, -1; selp.u32 %t1, 1, 0, %p0; mov.b64 %y, {{%t0, %t1}};",
        [values, b, c],
        8,
    )
    for i in range(WARPS * LANES):
        source, inside = shuffled(mode, i % LANES, int(b[i]), int(c[i]))
        assert got[i] == int(values[i // LANES * LANES + source]) | inside << 32, i


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffle_within_segments(mode: str, width: int) -> None:
    """Segments as CUDA makes them, against slices of Python lists; without the predicate."""
    values = np.random.default_rng(width).integers(0, 2**32, LANES, dtype=np.uint32)
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    for offset in range(32):
        got = run_instruction(f"shfl.sync.{mode}.b32 %y, %x0, {offset}, {clamp}, -1;", [values])
        want: list[int] = []
        for start in range(0, LANES, width):
            own = values[start : start + width].tolist()
            shift = min(offset, width)
            if mode == "up":
                want += own[:shift] + own[: width - shift]
            elif mode == "down":
                want += own[shift:] + own[width - shift :]
            elif mode == "idx":
                want += [own[offset % width]] * width
            else:
                # A partner in a lower segment is read, one in a higher is not.
                want += [
                    int(values[(start + k) ^ offset]) if (start + k) ^ offset < start + width else own[k]
                    for k in range(width)
                ]
        assert got.tolist() == want, (mode, width, offset)


def test_shuffle_with_partial_masks() -> None:
    """Only members execute; a lane outside keeps its register, and nothing is promised of what is read from it."""
    rng = np.random.default_rng(3)
    member = rng.random((WARPS, LANES)) < rng.random((WARPS, 1))
    values, offsets = (rng.integers(0, 2**32, WARPS * LANES, dtype=np.uint32) for _ in range(2))
    masks = np.repeat(mask_of(member), LANES).astype(np.uint32)
    text = "mov.b32 %y, 12345; setp.ne.u32 %p0, %x3, 0; @%p0 shfl.sync.idx.b32 %y, %x0, %x1, 31, %x2;"
    got = run_instruction(text, [values, offsets, masks, member.ravel().astype(np.uint32)])
    checked = 0
    for i, inside in enumerate(member.ravel()):
        warp, source = i // LANES, int(offsets[i]) % LANES
        if not inside:
            assert got[i] == 12345
        elif member[warp, source]:
            assert got[i] == values[warp * LANES + source]
            checked += 1
    assert checked > 100


def test_shuffle_into_its_own_operand() -> None:
    rng = np.random.default_rng(4)
    values, b = (rng.integers(0, 2**32, LANES, dtype=np.uint32) for _ in range(2))
    for operand in ("%x0", "%x1"):
        got = run_instruction(f"shfl.sync.bfly.b32 {operand}, %x0, %x1, 31, -1; mov.b32 %y, {operand};", [values, b])
        assert got.tolist() == [values[lane ^ int(b[lane]) % 32] for lane in range(LANES)]


# ---- exchanges in groups of lanes ----

Values = dict[int, int]  # by lane
Outcome = Callable[[Values], dict[int, tuple[int, bool]]]  # to each lane a word and a predicate


@dataclasses.dataclass(frozen=True)
class Exchange:
    """An instruction over %x0 with the mask %x1 that gives %t0 and %p0, and what it should give to each lane."""

    text: str
    expected: Outcome
    width: int = 32
    values: Callable[[np.random.Generator], np.ndarray] | None = None


def everyone(result: Callable[[Values], int]) -> Outcome:
    return lambda values: dict.fromkeys(values, (result(values) & MASK, False))


def agreed(holds: Callable[[list[bool]], bool], negated: bool = False) -> Outcome:
    """A vote on whether the value is odd."""
    return lambda values: dict.fromkeys(values, (0, holds([bool(v % 2) != negated for v in values.values()])))


def lanes_where(values: Values, condition: Callable[[int], bool]) -> int:
    return sum(1 << lane for lane, value in values.items() if condition(value))


def matched_by_any(values: Values) -> dict[int, tuple[int, bool]]:
    return {lane: (lanes_where(values, lambda v, own=own: v == own), False) for lane, own in values.items()}


def matched_by_all(values: Values) -> dict[int, tuple[int, bool]]:
    same = len(set(values.values())) == 1
    return dict.fromkeys(values, (lanes_where(values, lambda v: True) if same else 0, same))


def floats(rng: np.random.Generator) -> np.ndarray:
    """Of both signs and all kinds; in some warps nothing but zeros, in some nothing but NaN."""
    special = np.array([0, 1, 0x7F800000, 0x7FC00001, 0x3F800000, 0x7F7FFFFF, 0x00800000], np.uint32)
    words = rng.choice(special, (WARPS, LANES))
    words[::4] = rng.integers(0, 0x7F800000, words[::4].shape)
    words[1::8], words[2::8] = 0, 0x7FC00000
    return (words | rng.integers(0, 2, words.shape, dtype=np.uint32) << np.uint32(31)).ravel()


def extreme_float(largest: bool, absolute: bool, nan: bool) -> Outcome:
    def reduce(values: Values) -> int:
        bits = [v & 0x7FFFFFFF if absolute else v for v in values.values()]
        found = functools.reduce(lambda x, y: ref.minimum(ref.F32, x, y, nan=nan, largest=largest), bits)
        return ref.F32.nan if ref.F32.is_nan(found) else found

    return everyone(reduce)


def _exchanges() -> dict[str, Exchange]:
    odd = "and.b32 %t1, %x0, 1; setp.ne.u32 %p1, %t1, 0; "
    table = {
        "vote.all": Exchange(odd + "vote.sync.all.pred %p0, %p1, %x1;", agreed(all)),
        "vote.any": Exchange(odd + "vote.sync.any.pred %p0, %p1, %x1;", agreed(any)),
        "vote.uni": Exchange(odd + "vote.sync.uni.pred %p0, %p1, %x1;", agreed(lambda v: len(set(v)) == 1)),
        "vote.all of none": Exchange(odd + "vote.sync.all.pred %p0, !%p1, %x1;", agreed(all, negated=True)),
        "vote.ballot": Exchange(
            odd + "vote.sync.ballot.b32 %t0, %p1, %x1;", everyone(lambda v: lanes_where(v, lambda x: bool(x % 2)))
        ),
        "vote.ballot of none": Exchange(
            odd + "vote.sync.ballot.b32 %t0, !%p1, %x1;", everyone(lambda v: lanes_where(v, lambda x: not x % 2))
        ),
    }
    for width in (32, 64):
        table[f"match.any.b{width}"] = Exchange(f"match.any.sync.b{width} %t0, %x0, %x1;", matched_by_any, width)
        table[f"match.all.b{width}"] = Exchange(f"match.all.sync.b{width} %t0|%p0, %x0, %x1;", matched_by_all, width)
    for name, fold in {"add": sum, "min": min, "max": max}.items():
        table[f"redux.{name}.u32"] = Exchange(
            f"redux.sync.{name}.u32 %t0, %x0, %x1;", everyone(lambda v, f=fold: f(v.values()))
        )
        table[f"redux.{name}.s32"] = Exchange(
            f"redux.sync.{name}.s32 %t0, %x0, %x1;",
            everyone(lambda v, f=fold: f(ref.signed(x, 32) for x in v.values())),
        )
    for name, step in {"and": operator.and_, "or": operator.or_, "xor": operator.xor}.items():
        table[f"redux.{name}.b32"] = Exchange(
            f"redux.sync.{name}.b32 %t0, %x0, %x1;", everyone(lambda v, f=step: functools.reduce(f, v.values()))
        )
    for name in ("min", "max"):
        for flags in ("", ".abs", ".NaN", ".abs.NaN"):
            table[f"redux.{name}{flags}.f32"] = Exchange(
                f"redux.sync.{name}{flags}.f32 %t0, %x0, %x1;",
                extreme_float(name == "max", ".abs" in flags, ".NaN" in flags),
                values=floats,
            )
    return table


EXCHANGES = _exchanges()


def together(text: str) -> str:
    """All lanes at one instruction, each with the mask of its group."""
    return text


def one_after_another(text: str) -> str:
    """Once for each group, predicated."""
    steps = [step for step in text.split(";") if step.strip()]
    return "".join(f"setp.eq.u32 %p7, %x2, {g};" + "".join(f"@%p7 {step};" for step in steps) for g in range(GROUPS))


def in_branches(text: str) -> str:
    """Every group in a branch of its own, at different depths."""
    jumps = "".join(f"setp.eq.u32 %p7, %x2, {g}; @%p7 bra CASE{g}; " for g in range(GROUPS))
    cases = "".join(f"CASE{g}: {text} bra DONE; " for g in range(GROUPS))
    return f"{jumps} trap; {cases} DONE:"


def in_a_loop(text: str) -> str:
    """A group exchanges as it leaves a loop, one group in each round."""
    return f"""
        mov.u32 %t2, 0;
        LOOP: setp.eq.u32 %p7, %t2, %x2; @!%p7 bra NEXT; {text} bra DONE;
        NEXT: add.u32 %t2, %t2, 1; bra LOOP; DONE:"""


PLACEMENTS = {f.__name__: f for f in (together, one_after_another, in_branches, in_a_loop)}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", EXCHANGES)
def test_exchange_in_groups(name: str, placement: str) -> None:
    exchange = EXCHANGES[name]
    rng = np.random.default_rng(5)
    values = exchange.values(rng) if exchange.values else random_bits(rng, width=exchange.width)
    group = rng.integers(0, GROUPS, (WARPS, LANES))
    group[::5] = 0  # the whole warp
    check_exchange(exchange, PLACEMENTS[placement](exchange.text), values, group, group >= 0)


@pytest.mark.parametrize("name", EXCHANGES)
def test_exchange_after_lanes_have_exited(name: str) -> None:
    """Masks may name lanes that have exited; these take no part."""
    exchange = EXCHANGES[name]
    rng = np.random.default_rng(6)
    values = exchange.values(rng) if exchange.values else random_bits(rng, width=exchange.width)
    lives = rng.random((WARPS, LANES)) < 0.6
    text = f"setp.eq.u32 %p7, %x2, 9; @%p7 exit; {exchange.text}"
    check_exchange(exchange, text, values, np.where(lives, 0, 9), lives, mask=np.full(WARPS * LANES, MASK, np.uint32))


def check_exchange(
    exchange: Exchange,
    text: str,
    values: np.ndarray,
    group: np.ndarray,
    lives: np.ndarray,
    mask: np.ndarray | None = None,
) -> None:
    """Run `text` with each lane's group and the group's mask; lanes that do not live give nothing."""
    if mask is None:
        mask = masks_of_groups(group)
    got = run_instruction(
        f"mov.b32 %t0, 0; setp.ne.u32 %p0, 0, 0; {text} selp.u32 %t1, 1, 0, %p0; mov.b64 %y, {{%t0, %t1}};",
        [values, mask, group.ravel().astype(np.uint32)],
        8,
    ).reshape(WARPS, LANES)
    by_warp = values.reshape(WARPS, LANES)
    for warp in range(WARPS):
        want = dict.fromkeys(range(LANES), (0, False))
        for g in set(group[warp][lives[warp]].tolist()):
            members = [lane for lane in range(LANES) if group[warp, lane] == g and lives[warp, lane]]
            want |= exchange.expected({lane: int(by_warp[warp, lane]) for lane in members})
        assert got[warp].tolist() == [result | predicate << 32 for result, predicate in want.values()], warp


def test_elect() -> None:
    """One leader, one of the group, known to all, and the same one at the next election."""
    rng = np.random.default_rng(7)
    group = rng.integers(0, GROUPS, (WARPS, LANES))
    mask = masks_of_groups(group)
    text = "elect.sync %t0|%p0, %x0; selp.u32 %t1, 1, 0, %p0; mov.b64 %y, {%t0, %t1};"
    first, second = (run_instruction(text, [mask], 8).reshape(WARPS, LANES) for _ in range(2))
    assert (first == second).all()
    leader, leads = first & np.uint64(MASK), first >> np.uint64(32)
    for warp in range(WARPS):
        for g in set(group[warp].tolist()):
            members = np.nonzero(group[warp] == g)[0]
            (chosen,) = set(leader[warp, members].tolist())
            assert chosen in members
            assert [lane for lane in members if leads[warp, lane]] == [chosen]
    alone = run_instruction("elect.sync _|%p0, %x0; selp.u32 %y, 1, 0, %p0;", [mask])
    assert (alone.reshape(WARPS, LANES) == leads).all()


def test_active_mask() -> None:
    """The lanes of a branch are together in it, and all together again behind it."""
    rng = np.random.default_rng(8)
    group = rng.integers(0, GROUPS, (WARPS, LANES))
    placed = in_branches("activemask.b32 %t0;")
    got = run_instruction(
        f"{placed.replace('%x2', '%x0')} activemask.b32 %t1; mov.b64 %y, {{%t0, %t1}};",
        [group.ravel().astype(np.uint32)],
        8,
    ).reshape(WARPS, LANES)
    for g in range(GROUPS):
        want = np.broadcast_to(mask_of(group == g)[:, None] | np.uint64(MASK) << np.uint64(32), group.shape)
        assert (got == want)[group == g].all()


def test_active_mask_of_a_predicated_instruction() -> None:
    member = np.random.default_rng(9).random((WARPS, LANES)) < 0.5
    text = "setp.ne.u32 %p0, %x0, 0; mov.u32 %y, 7; @%p0 activemask.b32 %y;"
    got = run_instruction(text, [member.ravel().astype(np.uint32)]).reshape(WARPS, LANES)
    assert (got == np.where(member, mask_of(member)[:, None], 7)).all()


def test_partial_last_warp(machine: ptx.Machine) -> None:
    """Threads that the block does not have count as exited."""
    body = """
        .reg .b64 %a<2>; .reg .b32 %r<6>; .reg .pred %p<2>;
        mov.u32 %r0, %tid.x; setp.ge.u32 %p0, %r0, 0;
        vote.sync.ballot.b32 %r1, %p0, -1; redux.sync.add.u32 %r2, %r0, -1;
        shfl.sync.down.b32 %r3|%p1, %r0, 1, 31, -1; match.any.sync.b32 %r4, 5, -1;
        ld.param.u64 %a0, [out]; mul.wide.u32 %a1, %r0, 16; add.s64 %a0, %a0, %a1;
        st.global.v2.u32 [%a0], {%r1, %r2}; st.global.v2.u32 [%a0+8], {%r3, %r4}; ret;"""
    out = np.zeros((45, 4), np.uint32)
    result = machine.load(kernel(body, ".param .u64 out")).launch("k", 1, 45, [out])
    assert not result.findings
    last = (1 << 13) - 1
    assert (out[:32, 0] == MASK).all()
    assert (out[32:, 0] == last).all()
    assert (out[:32, 1] == sum(range(32))).all()
    assert (out[32:, 1] == sum(range(32, 45))).all()
    assert out[:44, 2].tolist() == [*range(1, 32), 31, *range(33, 45)]
    assert (out[32:, 3] == last).all()


def test_counts_of_lanes(machine: ptx.Machine) -> None:
    """An exchange is executed by the lanes that come to it, once, wherever the others are."""
    body = """
        .reg .b32 %r<4>; .reg .pred %p;
        mov.u32 %r0, %laneid; setp.lt.u32 %p, %r0, 10;
        @%p shfl.sync.idx.b32 %r1, %r0, 0, 31, 0x3ff;
        @!%p redux.sync.add.u32 %r2, %r0, 0xfffffc00;
        vote.sync.ballot.b32 %r3, %p, -1; ret;"""
    result = machine.load(kernel(body)).launch("k", 3, 64)
    assert not result.findings
    assert result.counts["shfl.sync.idx.b32"] == 6 * 10
    assert result.counts["redux.sync.add.u32"] == 6 * 22
    assert result.counts["vote.sync.ballot.b32"] == 6 * 32


@pytest.mark.parametrize(
    "text",
    [
        "shfl.up.b32 %t0, %t1, 1, 0, -1;",
        "shfl.sync.b32 %t0, %t1, 1, 0, -1;",
        "shfl.sync.up.bfly.b32 %t0, %t1, 1, 0, -1;",
        "shfl.sync.up.b64 %u0, %u1, 1, 0, -1;",
        "vote.all.pred %p0, %p1;",
        "vote.sync.none.pred %p0, %p1, -1;",
        "vote.sync.ballot.pred %p0, %p1, -1;",
        "match.sync.b32 %t0, %t1, -1;",
        "match.any.b32 %t0, %t1, -1;",
        "match.any.sync.b32 %t0|%p0, %t1, -1;",
        "match.any.sync.b16 %t0, %h1, -1;",
        "redux.add.u32 %t0, %t1, -1;",
        "redux.sync.add.or.b32 %t0, %t1, -1;",
        "redux.sync.add.f32 %t0, %t1, -1;",
        "redux.sync.and.u32 %t0, %t1, -1;",
        "redux.sync.min.abs.u32 %t0, %t1, -1;",
        "redux.sync.add.b32 %t0, %t1, -1;",
        "elect %t0|%p0, -1;",
        "elect.sync %t0, -1;",
        "activemask.u32 %t0;",
    ],
)
def test_what_is_not_ptx_is_refused(text: str) -> None:
    with pytest.raises(ptx.PtxError) as error:
        run_instruction(f"{text} mov.b32 %y, 0;", [np.zeros(1, np.uint32)])
    assert text.split(" ")[0] in str(error.value)


# ---- the same from CUDA ----

CUDA = """
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;

extern "C" __global__ void warp_intrinsics(const unsigned* x, const double* y, unsigned* out, double* wide) {
  const unsigned lane = threadIdx.x % 32, all = 0xffffffffu, v = x[threadIdx.x];
  unsigned* o = out + threadIdx.x * 12;
  o[0] = __shfl_xor_sync(all, v, 5);
  o[1] = __shfl_down_sync(all, v, 3, 8);
  o[2] = __shfl_up_sync(all, v, 2, 16);
  o[3] = __shfl_sync(all, v, lane * 7, 4);
  o[4] = __ballot_sync(all, v & 1) ^ (__any_sync(all, v == 3) << 1) ^ __all_sync(all, v < 100);
  int same;
  o[5] = __match_any_sync(all, v);
  o[6] = __match_all_sync(all, v / 1000, &same) + same;
  o[7] = __reduce_add_sync(all, v) ^ __reduce_max_sync(all, v);
  if (v % 3 == 0) {
    const unsigned mask = __activemask();
    o[8] = __reduce_add_sync(mask, v) + __popc(mask);
  } else {
    o[8] = cg::coalesced_threads().shfl(v, 0);
  }
  auto tile = cg::tiled_partition<8>(cg::this_thread_block());
  o[9] = cg::reduce(tile, v, cg::plus<unsigned>());
  o[10] = tile.ballot(v & 2) + 1000 * tile.meta_group_rank();
  auto kind = cg::labeled_partition(cg::coalesced_threads(), v % 5);
  o[11] = cg::reduce(kind, v, cg::greater<unsigned>()) * 64 + kind.size();
  wide[threadIdx.x] = __shfl_xor_sync(all, y[threadIdx.x], 17);
}
"""


@needs_nvcc
@pytest.mark.parametrize("flags", [("-O3",), ("-G",)])
def test_intrinsics_and_cooperative_groups(machine: ptx.Machine, flags: tuple[str, ...]) -> None:
    rng = np.random.default_rng(10)
    x = rng.integers(0, 12, 96).astype(np.uint32)
    y = rng.standard_normal(96)
    out, wide = np.zeros((96, 12), np.uint32), np.zeros(96)
    module = machine.load(compile_cuda(CUDA, *flags))
    result = module.launch("warp_intrinsics", 1, 96, [x, y, out, wide])
    # Without optimisation, bit-fields and padding are read before they are first written.
    assert kinds(result) <= ({"uninitialised"} if "-G" in flags else set()), result.findings
    for start in range(0, 96, LANES):
        v = [int(value) for value in x[start : start + LANES]]
        thirds = [lane for lane in range(LANES) if v[lane] % 3 == 0]
        others = [lane for lane in range(LANES) if v[lane] % 3]
        for lane in range(LANES):
            eight = v[lane // 8 * 8 : lane // 8 * 8 + 8]
            label = [value for value in v if value % 5 == v[lane] % 5]
            ballot = sum(value % 2 << k for k, value in enumerate(v))
            assert out[start + lane].tolist() == [
                v[lane ^ 5],
                v[lane + 3] if lane % 8 < 5 else v[lane],
                v[lane - 2] if lane % 16 >= 2 else v[lane],
                v[lane // 4 * 4 + lane * 7 % 4],
                ballot ^ (3 in v) << 1 ^ 1,
                sum((value == v[lane]) << k for k, value in enumerate(v)),
                0,  # every lane is in the group of all ones, and adds one
                sum(v) ^ max(v),
                sum(v[k] for k in thirds) + len(thirds) if lane in thirds else v[others[0]],
                sum(eight),
                sum((value // 2 % 2) << k for k, value in enumerate(eight)) + 1000 * ((start + lane) // 8),
                max(label) * 64 + len(label),
            ]
            assert wide[start + lane] == y[start + (lane ^ 17)]


# ---- functions ----


def test_lanes_that_call_a_function_at_different_times(machine: ptx.Machine) -> None:
    """They exchange all the same; registers of every width, predicates and the caller's values stay each lane's own."""
    body = """
        .func (.param .b32 result) inner(.param .b32 x) {
            .reg .b32 %r<4>; .reg .pred %p;
            ld.param.b32 %r0, [x];
            setp.gt.u32 %p, %r0, 100;
            vote.sync.ballot.b32 %r1, %p, -1;
            shfl.sync.bfly.b32 %r2, %r0, 31, 31, -1;
            @%p add.u32 %r2, %r2, %r1;
            st.param.b32 [result], %r2;
            ret;
        }
        .func (.param .b64 result) outer(.param .b32 x) {
            .reg .b32 %r<4>; .reg .b64 %d<3>; .reg .b16 %h; .reg .pred %p;
            ld.param.b32 %r0, [x];
            and.b32 %r1, %r0, 1;
            setp.eq.u32 %p, %r1, 1;
            cvt.u16.u32 %h, %r0;
            mul.wide.u32 %d0, %r0, %r0;
            { .param .b32 a; .param .b32 b; st.param.b32 [a], %r0; call.uni (b), inner, (a); ld.param.b32 %r2, [b]; }
            @%p add.u64 %d0, %d0, 1000000;
            cvt.u64.u16 %d1, %h;
            add.u64 %d0, %d0, %d1;
            cvt.u64.u32 %d1, %r2;
            shl.b64 %d1, %d1, 32;
            add.u64 %d0, %d0, %d1;
            st.param.b64 [result], %d0;
            ret;
        }"""
    main = """
        .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .pred %p;
        mov.u32 %r0, %tid.x;
        mul.lo.u32 %r1, %r0, 7919; and.b32 %r1, %r1, 31; mul.lo.u32 %r2, %r1, 5000;
    spin:
        sub.u32 %r2, %r2, 1; setp.gt.s32 %p, %r2, 0; @%p bra spin;
        mul.lo.u32 %r3, %r0, 10;
        { .param .b32 a; .param .b64 b; st.param.b32 [a], %r3; call.uni (b), outer, (a); ld.param.b64 %d0, [b]; }
        ld.param.u64 %d1, [out]; mul.wide.u32 %d2, %r0, 8; add.s64 %d1, %d1, %d2; st.global.u64 [%d1], %d0;
        ret;"""
    out = np.zeros(LANES, np.uint64)
    result = machine.load(kernel(main, ".param .u64 out", module=body)).launch("k", 1, LANES, [out])
    assert not result.findings, result.findings
    values = [10 * lane for lane in range(LANES)]
    ballot = sum((value > 100) << lane for lane, value in enumerate(values))
    for lane, value in enumerate(values):
        exchanged = (values[lane ^ 31] + (ballot if value > 100 else 0)) & MASK
        assert int(out[lane]) == (exchanged << 32) + value**2 + value + (1000000 if value % 2 else 0)
