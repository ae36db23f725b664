"""Barriers of blocks and of warps, fences, and waiting by looking: who waits for whom, and what is seen afterwards.

A barrier that lets go too early shows in what is read behind it, and one that never does as a dead-lock. Most tests
shuffle the order of the warps.
"""

from __future__ import annotations

import numpy as np
import pytest

from flopcuda import ptx
from tests.ptxvm.harness import compile_cuda, kernel, kinds, needs_nvcc, run_instruction

ROUNDS = 3
SEEDS = [None, 1, 2, 3]
REGISTERS = ".reg .b64 %a<4>; .reg .b32 %r<16>; .reg .pred %p<8>;"
SHARED = ".shared .align 8 .b8 s[8192];"
#: %r0 the thread, %r1 its place in shared memory, %r2 its warp, %r3 its lane, %a0 its place in the output.
SETUP = f"""
    {REGISTERS}
    mov.u32 %r0, %tid.x; mov.u32 %r1, s; mad.lo.u32 %r1, %r0, 4, %r1; shr.u32 %r2, %r0, 5; mov.u32 %r3, %laneid;
    ld.param.u64 %a0, [out]; mul.wide.u32 %a1, %r0, 4; add.s64 %a0, %a0, %a1;"""


def run(body: str, threads: int, seed: int | None = None, grid: int = 1) -> tuple[np.ndarray, ptx.LaunchResult]:
    """What the threads of one block, which are the same in all, leave in their places of the output."""
    out = np.zeros(threads, np.uint32)
    text = kernel(f"{SETUP} {body}", ".param .u64 out", module=SHARED)
    result = ptx.Machine(threads=1, seed=seed, budget=1_000_000).load(text).launch("k", grid, threads, [out])
    return out, result


# ---- all threads of a block ----


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", [1, 32, 45, 96, 1024])
@pytest.mark.parametrize(
    "barrier",
    [
        "bar.sync 0;",
        "bar.cta.sync 15;",
        "barrier.sync 0;",
        "barrier.cta.sync.aligned 7;",
        "mov.u32 %r8, 3; bar.sync %r8;",
        "bar.sync 0, {warps};",
        "mov.u32 %r8, {warps}; barrier.sync 2, %r8;",
        "barrier.cluster.arrive; barrier.cluster.wait;",
        "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;",
    ],
)
def test_whole_block(barrier: str, threads: int, seed: int | None) -> None:
    """Every round passes the words on to the next thread's place; two barriers a round."""
    barrier = barrier.format(warps=(threads + 31) // 32 * 32)
    body = f"""
        st.shared.u32 [%r1], %r0; add.u32 %r4, %r0, 1; rem.u32 %r4, %r4, {threads};
        mov.u32 %r5, s; mad.lo.u32 %r4, %r4, 4, %r5; mov.u32 %r6, 0;
        ROUND: {barrier} ld.shared.u32 %r7, [%r4]; {barrier} st.shared.u32 [%r1], %r7;
        add.u32 %r6, %r6, 1; setp.lt.u32 %p0, %r6, {ROUNDS}; @%p0 bra ROUND;
        st.global.u32 [%a0], %r7; ret;"""
    out, result = run(body, threads, seed, grid=2)
    assert not result.findings, result.findings
    assert out.tolist() == [(thread + ROUNDS) % threads for thread in range(threads)]
    assert result.barriers == 2 * 2 * ROUNDS


@pytest.mark.parametrize("seed", SEEDS)
def test_lanes_from_different_places(seed: int | None) -> None:
    """The lanes of a warp come to one barrier from two branches, and from a third one once a loop has ended."""
    body = """
        st.shared.u32 [%r1], %r0; setp.lt.u32 %p0, %r3, 10; setp.lt.u32 %p1, %r3, 20;
        @%p0 bra FIRST; @%p1 bra SECOND;
        mov.u32 %r4, 0; LOOP: add.u32 %r4, %r4, 1; setp.lt.u32 %p2, %r4, %r3; @%p2 bra LOOP;
        barrier.sync 0; bra END;
        FIRST: barrier.sync 0; bra END;
        SECOND: barrier.sync 0;
        END: xor.b32 %r5, %r0, 63; mov.u32 %r6, s; mad.lo.u32 %r6, %r5, 4, %r6; ld.shared.u32 %r7, [%r6];
        st.global.u32 [%a0], %r7; ret;"""
    out, result = run(body, 64, seed)
    assert not result.findings, result.findings
    assert out.tolist() == [thread ^ 63 for thread in range(64)]
    assert result.barriers == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_warp_arrives_with_its_last_lane(seed: int | None) -> None:
    """Two warps complete the barrier, and not the first halves of four: these see what their second halves write."""
    body = """
        xor.b32 %r4, %r0, 16; mov.u32 %r5, s; mad.lo.u32 %r4, %r4, 4, %r5; setp.lt.u32 %p0, %r3, 16;
        @%p0 bra FIRST;
        add.u32 %r6, %r0, 1000; st.shared.u32 [%r1], %r6; barrier.sync 1, 64; ret;
        FIRST: barrier.sync 1, 64; ld.shared.u32 %r6, [%r4]; st.global.u32 [%a0], %r6; ret;"""
    out, result = run(body, 128, seed)
    assert not result.findings, result.findings
    want = [1000 + thread + 16 if thread % 32 < 16 else 0 for thread in range(128)]
    assert out.tolist() == want
    assert result.barriers == 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "leavers", ["setp.lt.u32 %p0, %r3, 7;", "setp.eq.u32 %p0, %r2, 1;", "setp.gt.u32 %p0, %r0, 3;"]
)
def test_exited_threads_are_not_waited_for(leavers: str, seed: int | None) -> None:
    """Some exit before the barrier and some after a detour, when the others may already wait."""
    body = f"""
        mov.u32 %r4, 1; st.shared.u32 [%r1], %r4; {leavers} and.b32 %r5, %r0, 1; setp.ne.u32 %p1, %r5, 0;
        not.pred %p2, %p0; @%p2 bra STAY;
        @%p1 exit;
        mov.u32 %r6, 0; LOOP: add.u32 %r6, %r6, 1; setp.lt.u32 %p3, %r6, 300; @%p3 bra LOOP;
        exit;
        STAY: barrier.sync 0; barrier.red.popc.u32 %r7, 1, %p1;
        st.global.u32 [%a0], %r7; ret;"""
    out, result = run(body, 128, seed)
    assert not result.findings, result.findings
    leaves = {
        "%r3, 7;": lambda t: t % 32 < 7,
        "%r2, 1;": lambda t: t // 32 == 1,
        "%r0, 3;": lambda t: t > 3,
    }[leavers.split("%p0, ")[1]]
    stay = [thread for thread in range(128) if not leaves(thread)]
    odd = sum(thread % 2 for thread in stay)
    assert out.tolist() == [odd if thread in stay else 0 for thread in range(128)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rounds", [1, 5])
def test_arriving_at_the_cluster_barrier_is_not_waiting(rounds: int, seed: int | None) -> None:
    """Between arriving and waiting a warp gives the others a word, for which they spin before they arrive."""
    body = f"""
        mov.u32 %r4, 0; mov.u32 %r5, s; setp.eq.u32 %p0, %r0, 0; @%p0 st.shared.u32 [%r5], 0; bar.sync 0;
        ROUND: add.u32 %r4, %r4, 1; setp.eq.u32 %p0, %r2, 0; @%p0 bra FIRST;
        SPIN: nanosleep.u32 9; atom.shared.add.u32 %r6, [%r5], 0; setp.lt.u32 %p1, %r6, %r4; @%p1 bra SPIN;
        barrier.cluster.arrive; bra MEET;
        FIRST: barrier.cluster.arrive; setp.eq.u32 %p1, %r3, 0; @%p1 red.shared.add.u32 [%r5], 1;
        MEET: barrier.cluster.wait; setp.lt.u32 %p1, %r4, {rounds}; @%p1 bra ROUND;
        st.global.u32 [%a0], %r4; ret;"""
    out, result = run(body, 96, seed)
    assert not result.findings, result.findings
    assert (out == rounds).all()
    assert result.barriers == rounds + 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("barrier", ["bar.sync 0;", "barrier.sync.aligned 0;", "bar.red.popc.u32 %r6, 0, %p0;"])
def test_lanes_wait_at_an_aligned_barrier_for_a_lane_that_takes_long(barrier: str, seed: int | None) -> None:
    """However long: as after `if (threadIdx.x == 0) while (...); __syncthreads();`."""
    body = f"""
        mov.u32 %r4, 0; setp.ne.u32 %p0, %r0, 0; @%p0 bra MEET;
        SPIN: add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 60000; @%p1 bra SPIN;
        st.shared.u32 [s], %r4;
        MEET: {barrier} ld.shared.u32 %r5, [s]; st.global.u32 [%a0], %r5; ret;"""
    out, result = run(body, 64, seed)
    assert not result.findings, result.findings
    assert (out == 60000).all()
    assert result.barriers == 1


# ---- named barriers of some warps ----


@pytest.mark.parametrize("seed", SEEDS)
def test_sixteen_barriers_at_once(seed: int | None) -> None:
    """Pair p of warps meets p + 1 times at its own barrier; each time the two warps change words."""
    body = """
        shr.u32 %r4, %r2, 1; xor.b32 %r5, %r0, 32; mov.u32 %r6, s; mad.lo.u32 %r5, %r5, 4, %r6;
        add.u32 %r7, %r4, 1; mov.u32 %r8, %r0;
        ROUND: st.shared.u32 [%r1], %r8; barrier.sync.aligned %r4, 64; ld.shared.u32 %r8, [%r5]; add.u32 %r8, %r8, 100;
        bar.sync %r4, 64; sub.u32 %r7, %r7, 1; setp.ne.u32 %p0, %r7, 0; @%p0 bra ROUND;
        st.global.u32 [%a0], %r8; ret;"""
    out, result = run(body, 1024, seed)
    assert not result.findings, result.findings
    for thread in range(1024):
        rounds = thread // 64 + 1
        assert out[thread] == (thread ^ 32 if rounds % 2 else thread) + 100 * rounds
    assert result.barriers == sum(2 * (pair + 1) for pair in range(16))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("consumers", [1, 3])
def test_producer_and_consumers(consumers: int, seed: int | None) -> None:
    """Warp 0 fills a buffer again and again: it arrives at "full" and waits at "empty"; the others do the reverse."""
    threads = 32 * (1 + consumers)
    body = f"""
        mov.u32 %r4, s; mad.lo.u32 %r4, %r3, 4, %r4; mov.u32 %r5, 0; mov.u32 %r6, 0;
        setp.ne.u32 %p0, %r2, 0; @%p0 bra CONSUME;
        PRODUCE: mad.lo.u32 %r7, %r5, 32, %r3; st.shared.u32 [%r4], %r7; bar.arrive 1, {threads}; bar.sync 2, {threads};
        add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 10; @%p1 bra PRODUCE; ret;
        CONSUME: bar.sync 1, {threads}; ld.shared.u32 %r7, [%r4]; mad.lo.u32 %r6, %r6, 3, %r7; bar.arrive 2, {threads};
        add.u32 %r5, %r5, 1; setp.lt.u32 %p1, %r5, 10; @%p1 bra CONSUME;
        st.global.u32 [%a0], %r6; ret;"""
    out, result = run(body, threads, seed)
    assert not result.findings, result.findings
    for lane in range(32):
        want = 0
        for item in range(10):
            want = want * 3 + item * 32 + lane
        assert (out[32 + lane :: 32] == want).all()
    assert result.barriers == 20


@pytest.mark.parametrize("seed", SEEDS)
def test_predicated_barriers(seed: int | None) -> None:
    """Odd warps meet at one barrier and even ones at another; a reduction leaves the others' registers alone."""
    body = """
        and.b32 %r4, %r2, 1; setp.ne.u32 %p0, %r4, 0; setp.lt.u32 %p1, %r0, 70; mov.u32 %r5, 77; mov.u32 %r6, 88;
        st.shared.u32 [%r1], %r0; @%p0 bar.sync 3, 64; @!%p0 bar.sync 4, 64;
        xor.b32 %r7, %r0, 64; mov.u32 %r8, s; mad.lo.u32 %r7, %r7, 4, %r8; ld.shared.u32 %r9, [%r7];
        @%p0 bar.red.popc.u32 %r5, 5, 64, %p1; @!%p0 bar.red.popc.u32 %r6, 6, 64, %p1;
        mad.lo.u32 %r9, %r9, 100, %r5; mad.lo.u32 %r9, %r9, 100, %r6; st.global.u32 [%a0], %r9; ret;"""
    out, result = run(body, 128, seed)
    assert not result.findings, result.findings
    for thread in range(128):
        odd, even = (32, 88) if thread // 32 % 2 else (77, 32 + 6)
        assert out[thread] == ((thread ^ 64) * 100 + odd) * 100 + even
    assert result.barriers == 4
    assert result.counts["bar.red.popc.u32"] == 128


# ---- reductions ----


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", [20, 64, 77])
@pytest.mark.parametrize("odds", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_reductions(odds: float, threads: int, seed: int | None) -> None:
    """Of a random predicate and of its complement, over threads that exist."""
    chosen = np.random.default_rng(threads).random(threads) < odds
    bits = np.packbits(np.pad(chosen, (0, 96 - threads)), bitorder="little").view(np.uint32)
    count = (threads + 31) // 32 * 32
    body = f"""
        mov.u32 %r4, {bits[0]}; setp.eq.u32 %p0, %r2, 1; @%p0 mov.u32 %r4, {bits[1]};
        setp.eq.u32 %p0, %r2, 2; @%p0 mov.u32 %r4, {bits[2]};
        shr.u32 %r4, %r4, %r3; and.b32 %r4, %r4, 1; setp.ne.u32 %p0, %r4, 0;
        bar.red.popc.u32 %r5, 0, %p0; barrier.red.popc.aligned.u32 %r6, 1, {count}, !%p0;
        bar.red.and.pred %p1, 0, %p0; barrier.red.and.pred %p2, 0, {count}, !%p0;
        bar.cta.red.or.pred %p3, 0, %p0; barrier.cta.red.or.aligned.pred %p4, 0, !%p0;
        shl.b32 %r6, %r6, 8; or.b32 %r5, %r5, %r6;
        selp.u32 %r7, 0x10000, 0, %p1; or.b32 %r5, %r5, %r7; selp.u32 %r7, 0x20000, 0, %p2; or.b32 %r5, %r5, %r7;
        selp.u32 %r7, 0x40000, 0, %p3; or.b32 %r5, %r5, %r7; selp.u32 %r7, 0x80000, 0, %p4; or.b32 %r5, %r5, %r7;
        st.global.u32 [%a0], %r5; ret;"""
    out, result = run(body, threads, seed)
    assert not result.findings, result.findings
    flags = [chosen.all(), not chosen.any(), chosen.any(), not chosen.all()]
    want = int(chosen.sum()) | int((~chosen).sum()) << 8 | sum(int(flag) << (16 + k) for k, flag in enumerate(flags))
    assert (out == want).all()
    assert result.barriers == 6


@pytest.mark.parametrize("seed", SEEDS)
def test_reduction_at_two_places(seed: int | None) -> None:
    """Lanes of a warp give their predicates at two instructions; each writes the results of its own lanes only."""
    body = """
        mov.u32 %r5, 77; mov.u32 %r6, 88; setp.lt.u32 %p0, %r3, 12; setp.lt.u32 %p1, %r0, 40;
        @%p0 bra FIRST; barrier.red.popc.u32 %r6, 0, %p1; bra END;
        FIRST: barrier.red.popc.u32 %r5, 0, %p1;
        END: mad.lo.u32 %r7, %r5, 100, %r6; st.global.u32 [%a0], %r7; ret;"""
    out, result = run(body, 64, seed)
    assert not result.findings, result.findings
    assert out.tolist() == ([4088] * 12 + [7740] * 20) * 2


# ---- barriers of a warp ----


def test_warp_barrier_with_a_partner() -> None:
    """Lanes change words in pairs, each pair with a mask of its own."""
    text = """
        shl.b32 %t1, 3, %x0; st.shared.u32 [%t0], %x1; bar.warp.sync %t1; ld.shared.u32 %y, [%t2];"""
    lane = np.arange(64, dtype=np.uint32)
    word = np.random.default_rng(1).integers(0, 2**32, 64, dtype=np.uint32)
    setup = """
        mov.u32 %t0, s; mad.lo.u32 %t0, %i, 4, %t0; xor.b32 %t2, %i, 1; mov.u32 %t3, s; mad.lo.u32 %t2, %t2, 4, %t3;"""
    got = run_instruction(setup + text, [lane % 32 // 2 * 2, word], declarations=".shared .align 4 .b8 s[512];")
    assert (got == word[lane ^ 1]).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_warp_barriers_at_different_places(seed: int | None) -> None:
    """The two sides of a branch meet, each at an instruction of its own."""
    body = """
        setp.lt.u32 %p0, %r3, 16; xor.b32 %r4, %r0, 31; mov.u32 %r5, s; mad.lo.u32 %r4, %r4, 4, %r5;
        @%p0 bra LOW;
        st.shared.u32 [%r1], 1; bar.warp.sync -1; ld.shared.u32 %r6, [%r4]; bra END;
        LOW: st.shared.u32 [%r1], 2; bar.warp.sync -1; ld.shared.u32 %r6, [%r4];
        END: st.global.u32 [%a0], %r6; ret;"""
    out, result = run(body, 96, seed)
    assert not result.findings, result.findings
    assert out.tolist() == ([1] * 16 + [2] * 16) * 3
    assert result.counts["bar.warp.sync"] == 96


def test_groups_wait_for_their_own_members_only() -> None:
    """At one warp barrier lanes 0 to 3 wait for 8 to 11, which come, and 4 to 7 for 12 to 15, which come later."""
    body = """
        and.b32 %r4, %r3, 4; mov.u32 %r5, 0x0f0f; shl.b32 %r5, %r5, %r4;
        xor.b32 %r6, %r0, 8; mov.u32 %r7, s; mad.lo.u32 %r6, %r6, 4, %r7;
        setp.ge.u32 %p0, %r3, 16; @%p0 ret; setp.ge.u32 %p1, %r3, 8; setp.ge.u32 %p2, %r3, 12;
        @%p2 bra LATE; @%p1 bra EARLY;
        bar.warp.sync %r5; ld.shared.u32 %r8, [%r6]; st.global.u32 [%a0], %r8; bar.warp.sync %r5; ret;
        EARLY: st.shared.u32 [%r1], %r0; bar.warp.sync %r5; bar.warp.sync %r5; bar.warp.sync 0xff00; ret;
        LATE: bar.warp.sync 0xff00; st.shared.u32 [%r1], %r0; bar.warp.sync %r5; bar.warp.sync %r5; ret;"""
    out, result = run(body, 32)
    assert not result.findings, result.findings
    assert out[:8].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_groups_at_an_exchange_wait_for_their_own_members_only() -> None:
    """Lanes 4 to 7 wait at a ballot for 8 to 11, and these for 0 to 3, which have to pass the same ballot before."""
    body = """
        setp.ge.u32 %p0, %r3, 12; @%p0 ret; setp.ge.u32 %p1, %r3, 8; setp.lt.u32 %p2, %r3, 4; setp.ge.u32 %p3, %r3, 0;
        selp.u32 %r4, 0x00f, 0xff0, %p2;
        @!%p1 bra VOTE;
        bar.warp.sync 0xf0f;
        VOTE: vote.sync.ballot.b32 %r5, %p3, %r4;
        @%p2 bar.warp.sync 0xf0f;
        st.global.u32 [%a0], %r5; ret;"""
    out, result = run(body, 32)
    assert not result.findings, result.findings
    assert out[:12].tolist() == [0x00F] * 4 + [0xFF0] * 8


# ---- fences, and waiting by looking ----

FENCES = [
    "membar.cta;",
    "membar.gl;",
    "membar.sys;",
    "fence.cta;",
    "fence.acq_rel.gpu;",
    "fence.acquire.cta;",
    "fence.release.sys;",
    "fence.sc.cluster;",
    "fence.proxy.alias;",
    "fence.proxy.async;",
    "fence.proxy.async.shared::cta;",
    "fence.proxy.async.global;",
    "fence.mbarrier_init.release.cluster;",
]


@pytest.mark.parametrize("fence", FENCES)
@pytest.mark.parametrize("seed", [None, 1])
def test_message_through_memory(fence: str, seed: int | None) -> None:
    """Warp 0 looks until warp 1 has raised a flag, which it does behind what it has to say."""
    body = f"""
        .reg .b64 %u<4>; mov.u64 %u0, flag; mov.u64 %u1, word; setp.eq.u32 %p0, %r2, 1; @%p0 bra SAY;
        LOOK: ld.relaxed.gpu.global.u32 %r4, [%u0]; nanosleep.u32 20; setp.eq.u32 %p1, %r4, 0; @%p1 bra LOOK;
        {fence} ld.global.u32 %r5, [%u1]; st.global.u32 [%a0], %r5; ret;
        SAY: setp.ne.u32 %p2, %r3, 0; @%p2 ret;
        mov.u32 %r6, 0; WORK: add.u32 %r6, %r6, 1; setp.lt.u32 %p3, %r6, 500; @%p3 bra WORK;
        st.global.u32 [%u1], %r6; {fence} st.relaxed.gpu.global.u32 [%u0], 1; ret;"""
    out = np.zeros(64, np.uint32)
    text = kernel(f"{SETUP} {body}", ".param .u64 out", module=SHARED + ".global .u32 flag = 0; .global .u32 word = 0;")
    result = ptx.Machine(threads=1, seed=seed, budget=1_000_000).load(text).launch("k", 1, 64, [out])
    assert not result.findings, result.findings
    assert out.tolist() == [500] * 32 + [0] * 32


@pytest.mark.parametrize(("pause", "budget"), [("", 10_000_000), ("nanosleep.u32 100;", 10_000)])
@pytest.mark.parametrize("seed", [None, 1])
def test_lock_among_the_lanes_of_a_warp(pause: str, budget: int, seed: int | None) -> None:
    """Lanes that do not get a lock wait for others of their own warp; each adds to a sum, not atomically.

    A lane that sleeps lets the others run at once, so that few instructions will do.
    """
    body = f"""
        .reg .b64 %u<4>; mov.u64 %u0, lock; mov.u64 %u1, sum;
        TRY: atom.global.cas.b32 %r4, [%u0], 0, 1; setp.eq.u32 %p0, %r4, 0; @%p0 bra HELD; {pause} bra TRY;
        HELD: membar.gl; ld.volatile.global.u32 %r5, [%u1]; add.u32 %r5, %r5, %r0; st.volatile.global.u32 [%u1], %r5;
        membar.gl; atom.global.exch.b32 %r6, [%u0], 0; ret;"""
    text = kernel(f"{SETUP} {body}", ".param .u64 out", module=SHARED + ".global .u32 lock = 0; .global .u32 sum = 0;")
    module = ptx.Machine(threads=1, seed=seed, budget=budget).load(text)
    result = module.launch("k", 2, 45, [np.zeros(45, np.uint32)])
    assert not result.findings, result.findings
    assert module.variable("sum").view(np.uint32)[0] == 2 * sum(range(45))


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("barrier", "message"),
    [
        ("mov.u32 %r4, 16; bar.sync %r4;", "over 15"),
        ("mov.u32 %r4, 33; bar.sync 0, %r4;", "multiple of the warp size"),
        ("mov.u32 %r4, 0; bar.arrive 0, %r4;", "zero"),
        ("barrier.sync %r3, 32;", "different barrier numbers"),
        ("shl.b32 %r4, %r3, 5; barrier.sync 0, %r4;", "different thread counts"),
    ],
)
def test_operands_that_cannot_be(barrier: str, message: str) -> None:
    _, result = run(f"rem.u32 %r3, %r3, 16; {barrier} ret;", 64)
    assert kinds(result) == {"barrier"}
    assert any(message in finding.message for finding in result.findings)
    assert result.stopped


@pytest.mark.parametrize(
    "text",
    [
        "bar 0;",
        "bar.sync;",
        "bar.sync 0, 32, 32;",
        "bar.sync 0, 33;",
        "bar.arrive 0, 0;",
        "bar.sync 16;",
        "bar.sync.aligned 0;",
        "bar.sync.u32 0;",
        "bar.gpu.sync 0;",
        "bar.arrive 0;",
        "bar.arrive.sync 0, 32;",
        "bar.red.u32 %t0, 0, %p0;",
        "bar.red.popc.pred %p1, 0, %p0;",
        "bar.red.and.u32 %t0, 0, %p0;",
        "bar.red.popc.and.u32 %t0, 0, %p0;",
        "bar.red.popc.u32 %t0, 0;",
        "bar.sync.popc 0;",
        "barrier.cluster.sync;",
        "barrier.cluster.arrive 0;",
        "barrier.cluster.arrive.acquire;",
        "barrier.cluster.arrive.release.relaxed;",
        "barrier.cluster.wait.release;",
        "bar.cluster.arrive;",
        "barrier.warp.sync -1;",
        "bar.warp -1;",
        "bar.warp.sync;",
        "membar.gpu.sc;",
        "membar;",
        "fence;",
        "fence.proxy;",
        "fence.proxy.texture;",
        "fence.alias;",
        "fence.sc.relu.gpu;",
        "fence.sc.gpu.shared;",
        "nanosleep 5;",
        "nanosleep.u64 5;",
        "nanosleep.u32;",
        "griddepcontrol;",
        "griddepcontrol.wait 1;",
        "setmaxnreg.inc.u64 40;",
        "pmevent %t0;",
    ],
)
def test_what_is_not_ptx_is_refused(text: str) -> None:
    with pytest.raises(ptx.PtxError):
        run_instruction(f"{text} mov.b32 %y, 0;", [np.zeros(1, np.uint32)])


# ---- the same from CUDA ----

CUDA = """
#include <cooperative_groups.h>
namespace cg = cooperative_groups;

extern "C" __global__ void barriers(const int* x, int* out, int n) {
  __shared__ int words[256];
  __shared__ volatile int flag;
  const int i = threadIdx.x, v = x[i];
  int* o = out + 6 * i;
  if (i == 0) flag = 0;
  words[i] = v;
  __syncthreads();
  o[0] = words[(i + 1) % n];
  o[1] = __syncthreads_count(v > 5);
  o[2] = __syncthreads_and(v >= 0) * 2 + __syncthreads_or(v > 8);
  words[i] += 100;
  __syncwarp(i % 32 < 16 ? 0xffffu : 0xffff0000u);
  o[3] = words[i ^ 7];
  cg::sync(cg::this_thread_block());
  if (i == n - 1) {
    words[0] = 4321;
    __threadfence_block();
    flag = 1;
  }
  while (flag == 0) __nanosleep(50);
  __threadfence();
  o[4] = words[0];
  cg::this_thread_block().sync();
  auto tile = cg::tiled_partition<4>(cg::this_thread_block());
  words[i] = v * 2;
  tile.sync();
  o[5] = words[i / 4 * 4 + (i + 1) % 4];
}
"""


@needs_nvcc
@pytest.mark.parametrize("flags", [("-O3",), ("-G",)])
@pytest.mark.parametrize("seed", [None, 1])
def test_barriers_of_cuda(flags: tuple[str, ...], seed: int | None) -> None:
    x = np.random.default_rng(4).integers(0, 10, 96).astype(np.int32)
    out = np.zeros((96, 6), np.int32)
    result = ptx.Machine(threads=1, seed=seed).load(compile_cuda(CUDA, *flags)).launch("barriers", 1, 96, [x, out, 96])
    # The flag is read and written on purpose without a barrier; at -G bit-fields are read before they are written.
    assert kinds(result) <= ({"race", "uninitialised"} if "-G" in flags else {"race"}), result.findings
    i = np.arange(96)
    assert (out[:, 0] == x[(i + 1) % 96]).all()
    assert (out[:, 1] == (x > 5).sum()).all()
    assert (out[:, 2] == 2 + (x > 8).any()).all()
    assert (out[:, 3] == x[i ^ 7] + 100).all()
    assert (out[:, 4] == 4321).all()
    assert (out[:, 5] == 2 * x[i // 4 * 4 + (i + 1) % 4]).all()
