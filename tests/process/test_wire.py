"""Requests: every value that is encoded comes back whole from a strict decoder of another hand."""

from __future__ import annotations

import dataclasses
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard.plan import (
    Bind,
    Deny,
    Device,
    DevPts,
    Directory,
    HostIdentity,
    Identity,
    LandlockRule,
    LandlockRuleset,
    LaunchPlan,
    Mask,
    MountStep,
    Namespaces,
    Narrowed,
    Private,
    Proc,
    ReadOnly,
    ResourceLimit,
    Scratch,
    Spawn,
    SpawnUser,
    Symlink,
    TextFile,
)
from sandyard.process.wire import (
    BODY_LIMIT,
    INLINE_LIMIT,
    Request,
    SignalTarget,
    encode_kill,
    encode_message,
    encode_plan,
    encode_signal,
    encode_spawn,
)
from tests.process.protocol import (
    Head,
    SpawnRequest,
    Start,
    decode_head,
    decode_pair,
    decode_spawn,
    decode_start,
    split_records,
)

ODD = b"/caf\xc3\xa9 \xff\xfe\n'$(x)".decode("utf-8", "surrogateescape")
U32, U64 = 2**32 - 1, 2**64 - 1

PLAN = LaunchPlan(
    identity=Identity(1000, 100, HostIdentity.CALLER),
    namespaces=Namespaces(0x7E020000),
    hostname="sandbox",
    loopback=False,
    scratch=Scratch(1 << 40, 12345),
    steps=(),
    limits=(),
    landlock=None,
    seccomp=bytes(range(16)),
)

STEPS: tuple[MountStep, ...] = (
    Directory("/a"),
    Directory(ODD, 0o1777),
    TextFile("/etc/passwd", b"agent:x\n", 0o600),
    TextFile("/etc/empty", b""),
    TextFile(ODD, b"\0\xff" * 100),
    Symlink("/bin", "usr/bin"),
    Symlink(ODD, ODD),
    Bind("/usr", "/usr"),
    Bind("/w", "/w", writable=True),
    Bind("/dev/null", "/dev/null", devices=True),
    Bind("/w", "/v", as_owner=True),
    Bind("/x", "/x", optional=True),
    Bind("/i", "/i", inode=(U64, U64 - 1)),
    Bind("/i", "/i", inode=(0, 0)),
    Bind("/i", "/i"),
    Bind(ODD, "/" + "n" * 4000, True, True, True, True, (64769, 42)),
    Private("/tmp", 0o1777),
    Private(ODD, 0),
    Private("/home/reviewer", 0o700, 3),
    Proc(),
    Proc("/elsewhere"),
    DevPts(),
    DevPts(ODD),
    ReadOnly("/sys"),
    Mask("/proc/kcore"),
    Deny("/srv/key"),
    Device("/dev/kvm", 10, 232),
    Device(ODD, U32, 0),
)


def assert_whole(plan: LaunchPlan, host_uid: int = 1001, host_gid: int = 1002) -> None:
    body = encode_plan(plan, host_uid, host_gid)
    assert decode_start(body) == Start(plan, host_uid, host_gid)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_step_comes_back(step: MountStep) -> None:
    assert_whole(dataclasses.replace(PLAN, steps=(step,)))


def test_steps_keep_their_order() -> None:
    assert_whole(dataclasses.replace(PLAN, steps=STEPS))
    assert_whole(dataclasses.replace(PLAN, steps=tuple(reversed(STEPS))))


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": Identity(U32, 1, HostIdentity.LEASED)},
        {"identity": Identity(1, U32, HostIdentity.CALLER)},
        {"identity": Identity(1, 2, HostIdentity.LEASED, 3, U32)},
        {"namespaces": Namespaces(0)},
        {"namespaces": Namespaces.MOUNT | Namespaces.NET},
        {"hostname": ODD},
        {"loopback": True},
        {"scratch": Scratch(U64, 0)},
        {"limits": (ResourceLimit(7, U64), ResourceLimit(4, 0), ResourceLimit(U32, 1))},
        {"landlock": LandlockRuleset(U64, 0, (), logged=True)},
        {"landlock": LandlockRuleset(0, 3, (LandlockRule("/", U64), LandlockRule(ODD, 1)))},
        {"landlock": LandlockRuleset(1, 0, (LandlockRule("/w", 1, (U64, U64 - 1)),))},
        {"hostname": "", "scratch": None, "outer_proc": True, "namespaces": Namespaces(0)},
        {"seccomp": b""},
        {"seccomp": b"", "landlock": None, "unconfined": True},
        {"unconfined": True},
        {"seccomp": bytes(8 * 4096)},
    ],
)
def test_rest_of_plan_comes_back(changes: dict[str, object]) -> None:
    plan = dataclasses.replace(PLAN, steps=STEPS[:3], **changes)  # type: ignore[arg-type]
    assert_whole(plan, U32, 0)


def test_similar_steps_stay_apart() -> None:
    # Encoded steps are remembered, so what is alike to a dictionary must be alike on the wire.
    for steps in ((Directory("/a", 1), Private("/a", 1)), (Proc("/p"), DevPts("/p"), Mask("/p"))):
        assert_whole(dataclasses.replace(PLAN, steps=steps))
    assert_whole(dataclasses.replace(PLAN, steps=(Bind("/i", "/i", inode=(0, 0)),)))
    assert_whole(dataclasses.replace(PLAN, steps=(Bind("/i", "/i"),)))


def test_filter_is_last() -> None:
    plan = dataclasses.replace(PLAN, loopback=True, landlock=LandlockRuleset(1, 0, ()))
    assert split_records(encode_plan(plan, 1, 1))[-1].payload == PLAN.seccomp


names = st.binary(min_size=1, max_size=40).map(lambda b: b.replace(b"\0", b"0"))
paths = names.map(lambda b: "/" + b.decode("utf-8", "surrogateescape"))
modes = st.integers(0, 0o7777)
steps = st.one_of(
    st.builds(Directory, paths, modes),
    st.builds(TextFile, paths, st.binary(max_size=50), modes),
    st.builds(Symlink, paths, paths),
    st.builds(
        Bind,
        paths,
        paths,
        writable=st.booleans(),
        devices=st.booleans(),
        as_owner=st.booleans(),
        optional=st.booleans(),
        inode=st.none() | st.tuples(st.integers(0, U64), st.integers(0, U64)),
    ),
    st.builds(Private, paths, modes, st.integers(0, U32)),
    st.builds(Device, paths, st.integers(0, U32), st.integers(0, U32)),
    *(st.builds(kind, paths) for kind in (Proc, DevPts, ReadOnly, Mask, Deny)),
)
rulesets = st.builds(
    LandlockRuleset,
    st.integers(0, U64),
    st.integers(0, U64),
    st.lists(st.builds(LandlockRule, paths, st.integers(0, U64)), max_size=4).map(tuple),
)
u32 = st.integers(0, U32)
plans = st.builds(
    LaunchPlan,
    identity=st.builds(Identity, u32, u32, st.sampled_from(HostIdentity), u32, u32),
    namespaces=st.builds(Namespaces, u32.map(lambda n: n & 0x7E020000)),
    hostname=paths,
    loopback=st.booleans(),
    scratch=st.builds(Scratch, st.integers(0, U64), st.integers(0, U64)),
    steps=st.lists(steps, max_size=6).map(tuple),
    limits=st.lists(st.builds(ResourceLimit, u32, st.integers(0, U64)), max_size=3).map(tuple),
    landlock=st.none() | rulesets,
    seccomp=st.binary(max_size=64),
)


@given(plans, u32, u32)
def test_any_plan_comes_back(plan: LaunchPlan, host_uid: int, host_gid: int) -> None:
    assert_whole(plan, host_uid, host_gid)


# --- commands -------------------------------------------------------------------------------------

words = st.binary(max_size=30).map(lambda b: b.replace(b"\0", b"0"))
variables = st.tuples(words.map(lambda b: b.replace(b"=", b"_")), words)
spawns = st.builds(
    Spawn,
    argv=st.lists(words, min_size=1, max_size=5).map(tuple),
    environment=st.lists(variables, max_size=5).map(tuple),
    cwd=words.map(lambda b: b"/" + b),
    end_leftovers=st.booleans(),
    narrowed=st.none()
    | st.builds(
        Narrowed,
        landlock=rulesets,
        limits=st.lists(st.builds(ResourceLimit, u32, st.integers(0, U64)), max_size=3).map(tuple),
        seccomp=st.binary(max_size=64),
    ),
    window=st.none() | st.tuples(st.integers(1, 65_535), st.integers(1, 65_535)),
    user=st.none() | st.builds(SpawnUser, u32, st.lists(u32, max_size=4).map(tuple)),
)


@given(spawns, st.integers(0, 7), st.booleans())
def test_any_command_comes_back(spawn: Spawn, fd_mask: int, report: bool) -> None:
    body = encode_spawn(spawn, fd_mask, report=report)
    assert decode_spawn(body) == SpawnRequest(spawn, fd_mask, report)


@pytest.mark.parametrize(
    "spawn",
    [
        Spawn((b"true",), (), b"/"),
        Spawn((b"", b"", b""), ((b"A", b""), (b"B", b"=x=")), b"/ \xff\n"),
        Spawn((b"cat",) * 2000, ((b"A", b"1"),) * 2000, b"/w", end_leftovers=True),
        Spawn((b"id",), (), b"/", narrowed=Narrowed(limits=(ResourceLimit(7, 16),))),
        Spawn((b"id",), (), b"/", user=SpawnUser(1, (2, 3))),
        Spawn((b"\xff" * 200_000,), ((b"\xfe", b"\xfd" * 200_000),), b"/"),
    ],
    ids=["least", "odd", "many", "narrowed", "user", "long"],
)
def test_command_comes_back(spawn: Spawn) -> None:
    assert decode_spawn(encode_spawn(spawn, 6)) == SpawnRequest(spawn, 6, report=False)
    captured = decode_spawn(encode_spawn(spawn, 1, captured=True))
    assert captured == SpawnRequest(spawn, 1, report=False, captured=True)


@pytest.mark.parametrize("target", SignalTarget)
@pytest.mark.parametrize("number", [1, signal.SIGKILL, 64])
def test_signal_comes_back(number: int, target: SignalTarget) -> None:
    assert decode_pair("signal_body", encode_signal(number, target)) == (number, target)


@pytest.mark.parametrize("force", [False, True])
def test_kill_comes_back(force: bool) -> None:
    assert decode_pair("kill_body", encode_kill(force=force)) == (force, 0)


@pytest.mark.parametrize("kind", Request)
@pytest.mark.parametrize("job", [0, 1, U32])
@pytest.mark.parametrize("size", [0, INLINE_LIMIT, INLINE_LIMIT + 1, BODY_LIMIT])
def test_head_comes_back(kind: Request, job: int, size: int) -> None:
    large = size > INLINE_LIMIT
    head = encode_message(kind, job, size, in_memfd=large)
    assert decode_head(head) == Head(kind, large, job, size)
