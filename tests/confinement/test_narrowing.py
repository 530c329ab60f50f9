"""Narrowings as values: what one command has less, and what can't be taken away."""

from __future__ import annotations

import dataclasses
import errno

import pytest

from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.confinement.explanation import Enforced
from sandyard.confinement.narrowing import NarrowedCommand, plan_narrowing
from sandyard.confinement.seccomp import narrowing_program
from sandyard.errors import ConfinementUnavailableError, PolicyError
from sandyard.narrowing import Narrowing
from sandyard.plan import LandlockRuleset, Narrowed, ResourceLimit
from sandyard.platform import Grant, HostFacts
from sandyard.policy import Policy
from sandyard.resources import ResourceLimits
from tests.confinement.bpf_machine import AARCH64, ALLOW, X86_64, refused, run_filter
from tests.confinement.hosts import ARM_BARE, DEBIAN_ROOT, OLD_USER, WORKSPACE, grant

READ, WRITE, REFER = 0b1101, 0x7FFF & ~0b1101, 1 << 13
SRV = WorkspaceRoot("/srv/ws", "/srv/ws", (7, 42))


def enforced(
    policy: Policy | None = None,
    facts: HostFacts = DEBIAN_ROOT,
    root: WorkspaceRoot = SRV,
    grants: tuple[Grant, ...] = (),
) -> Enforced:
    policy = policy or Policy()
    plan = plan_session(policy, facts, root, grants)
    return Enforced(policy, plan, facts.machine, root.path, grants)


def planned(narrowing: Narrowing, whole: Enforced | None = None) -> NarrowedCommand:
    return plan_narrowing(narrowing, whole or enforced())


def layer(narrowing: Narrowing, whole: Enforced | None = None) -> LandlockRuleset:
    narrowed = planned(narrowing, whole).narrowed
    assert narrowed is not None
    assert narrowed.landlock is not None
    return narrowed.landlock


@pytest.mark.parametrize("audited", [True, False])
def test_layer_is_heard_as_session_is(audited: bool) -> None:
    whole = enforced(facts=dataclasses.replace(DEBIAN_ROOT, audited=audited))
    assert layer(Narrowing(writes=()), whole).logged is audited


def rights(ruleset: LandlockRuleset) -> dict[str, int]:
    return {rule.path: rule.access for rule in ruleset.rules}


def test_nothing_is_nothing() -> None:
    assert planned(Narrowing()) == NarrowedCommand(None, None, ())


def test_writes_are_those_that_are_named() -> None:
    ruleset = layer(Narrowing(writes=("build",)))
    assert ruleset.handled == WRITE
    assert rights(ruleset) == {
        "/srv/ws/build": WRITE,
        "/tmp": WRITE,
        "/var/tmp": WRITE,
        "/dev/shm": WRITE,
        "/run": WRITE,
        "/home/agent": WRITE,
        "/dev": 0b10,
        "/proc": 0b10 | 1 << 14,
    }
    assert planned(Narrowing(writes=("build",))).temporary is None


def test_private_directory_around_what_is_withheld() -> None:
    """Rights hold for all that is beneath, so /tmp is not writable around a workspace that is not."""
    whole = enforced(root=WORKSPACE)
    for narrowing in (Narrowing(writes=()), Narrowing(reads=()), Narrowing(writes=("sub",))):
        command = planned(narrowing, whole)
        assert command.temporary == "/var/tmp"
        assert "/tmp" not in rights(layer(narrowing, whole))
    command = planned(Narrowing(writes=(".",)), whole)
    assert command.temporary is None
    assert rights(layer(Narrowing(writes=(".",)), whole))["/tmp"] == WRITE


def test_reads_leave_the_system() -> None:
    ruleset = layer(Narrowing(reads=("src",)))
    found = rights(ruleset)
    assert ruleset.handled == READ | REFER
    assert found["/srv/ws/src"] == READ
    assert found["/"] == REFER
    assert "/srv/ws" not in found
    for path in ("/usr", "/etc/passwd", "/etc/ssl/certs", "/dev", "/proc", "/root/.pyenv", "/tmp"):
        assert found[path] == READ, path


def test_both_are_one_layer() -> None:
    ruleset = layer(Narrowing(reads=("src",), writes=("build",)))
    found = rights(ruleset)
    assert ruleset.handled == READ | WRITE
    assert (found["/srv/ws/src"], found["/srv/ws/build"]) == (READ, WRITE)
    assert found["/tmp"] == READ | WRITE
    assert "/" not in found


def test_grants_are_withheld_too() -> None:
    policy = Policy(reads=("/srv/data",), writes=("/tmp/out", "/mnt/link"))
    grants = (
        grant("/srv/data"),
        grant("/tmp/out", writable=True),
        grant("/mnt/link", writable=True, source="/mnt/real"),
    )
    whole = enforced(policy, grants=grants)
    found = rights(layer(Narrowing(writes=()), whole))
    assert not {"/srv/data", "/tmp/out", "/tmp", "/mnt/real"} & found.keys()
    found = rights(layer(Narrowing(writes=("/tmp/out", "/mnt/link/a")), whole))
    assert {"/tmp/out", "/tmp", "/mnt/real/a"} <= found.keys()
    found = rights(layer(Narrowing(reads=("/srv/data/part",)), whole))
    assert found["/srv/data/part"] == READ
    assert not {"/srv/data", "/tmp"} & found.keys()


@pytest.mark.parametrize(
    "narrowing",
    [
        Narrowing(writes=("/usr",)),
        Narrowing(writes=("/srv",)),
        Narrowing(writes=("/",)),
        Narrowing(writes=("/srv/ws-not",)),
        Narrowing(reads=("/root",)),
        Narrowing(reads=("/",)),
        Narrowing(processes=5000),
        Narrowing(open_files=5000),
        Narrowing(memory=2**40),
    ],
    ids=str,
)
def test_wider_is_refused(narrowing: Narrowing) -> None:
    whole = enforced(Policy(limits=ResourceLimits(memory=2**30)))
    with pytest.raises(PolicyError):
        planned(narrowing, whole)


def test_read_only_grant_is_not_writable() -> None:
    whole = enforced(Policy(reads=("/srv/data",)), grants=(grant("/srv/data"),))
    assert rights(layer(Narrowing(reads=("/srv/data",)), whole))["/srv/data"] == READ
    with pytest.raises(PolicyError, match="can write to"):
        planned(Narrowing(writes=("/srv/data",)), whole)


def test_workspace_in_a_system_tree() -> None:
    whole = enforced(root=WorkspaceRoot("/usr/local/ws", "/usr/local/ws", (7, 42)))
    assert layer(Narrowing(writes=()), whole).handled == WRITE
    with pytest.raises(PolicyError, match="it lies in /usr"):
        planned(Narrowing(reads=()), whole)


@pytest.mark.parametrize("facts", [ARM_BARE, OLD_USER])
def test_kernel_that_can_not_hold_it(facts: HostFacts) -> None:
    whole = enforced(facts=facts)
    with pytest.raises(ConfinementUnavailableError, match=r"Linux 6\.2"):
        planned(Narrowing(writes=()), whole)
    narrowed = planned(Narrowing(open_files=16), whole).narrowed
    assert narrowed is not None
    assert narrowed.limits == (ResourceLimit(7, 16),)
    assert (narrowed.landlock is None) == (facts is ARM_BARE)


def test_calls_come_with_a_layer() -> None:
    """Without one of its own a command could write into the memory of the others."""
    with pytest.raises(ConfinementUnavailableError):
        planned(Narrowing(network=False), enforced(facts=ARM_BARE))
    ruleset = layer(Narrowing(network=False))
    assert (ruleset.handled, ruleset.scoped) == (REFER, 2)
    assert rights(ruleset) == {"/": REFER}


def test_limits_are_lower() -> None:
    narrowing = Narrowing(memory=2**25, processes=10, cpu_time=3, file_size=1000, open_files=64)
    command = planned(narrowing)
    assert command.narrowed == Narrowed(
        layer(Narrowing(network=False)),  # or it could have one of its neighbours do more
        limits=(
            ResourceLimit(2, 2**25),
            ResourceLimit(6, 10),
            ResourceLimit(0, 3),
            ResourceLimit(1, 1000),
            ResourceLimit(7, 64),
        ),
    )
    assert [(limit.limit, limit.value) for limit in command.held] == [
        ("memory", 2**25), ("processes", 10), ("cpu_time", 3), ("file_size", 1000),
        ("open_files", 64),
    ]  # fmt: skip


def test_ptrace_is_taken_only_where_it_is() -> None:
    assert planned(Narrowing(ptrace=False)).narrowed is None
    whole = enforced(Policy(syscalls=("ptrace",)))
    narrowed = planned(Narrowing(ptrace=False), whole).narrowed
    assert narrowed is not None
    assert narrowed.seccomp == narrowing_program("x86_64", ptrace=False)


SOCKET, PTRACE = {"x86_64": 41, "aarch64": 198}, {"x86_64": 101, "aarch64": 117}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_refuses_what_is_taken(machine: str) -> None:
    arch = {"x86_64": X86_64, "aarch64": AARCH64}[machine]

    def answers(number: int, **taken: bool) -> list[int]:
        program = narrowing_program(machine, **taken)
        return [run_filter(program, arch, number, family) for family in (1, 2, 10, 16, 17)]

    no = refused(errno.EACCES)
    assert answers(SOCKET[machine], network=False) == [ALLOW, no, no, no, no]
    assert answers(SOCKET[machine], unix_sockets=False) == [no, ALLOW, ALLOW, ALLOW, ALLOW]
    assert answers(SOCKET[machine], network=False, unix_sockets=False) == [no] * 5
    assert answers(PTRACE[machine], ptrace=False) == [refused(errno.EPERM)] * 5
    assert answers(PTRACE[machine], network=False) == [ALLOW] * 5
    assert narrowing_program(machine) == b""


@pytest.mark.parametrize(
    "fields",
    [
        {"reads": "src"},
        {"reads": ("../x",)},
        {"writes": ("",)},
        {"writes": (1,)},
        {"writes": ("a\0b",)},
        {"network": 0},
        {"ptrace": None},
        {"memory": 5},
        {"processes": 0},
        {"open_files": 2},
        {"file_size": True},
        {"cpu_time": 1.5},
    ],
    ids=str,
)
def test_impossible_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(PolicyError) as raised:
        Narrowing(**fields)  # type: ignore[arg-type]
    assert raised.value.context["field"] == next(iter(fields))


def test_paths_have_one_form() -> None:
    narrowing = Narrowing(reads=("./a//b/", "a/b", "//srv/x/"), writes=["."])  # type: ignore[arg-type]
    assert (narrowing.reads, narrowing.writes) == (("a/b", "/srv/x"), (".",))
    assert dataclasses.replace(narrowing) == narrowing


TREE = {
    ("/srv/ws", ""): {".env": False, "src": False, "link": True, "secret": False},
    ("/srv/ws", "src"): {"a.py": False, "key": False},
}


def listed(source: str, below: str) -> dict[str, bool]:
    return TREE.get((source, below), {})


def around(narrowing: Narrowing, whole: Enforced | None = None) -> dict[str, int]:
    narrowed = plan_narrowing(narrowing, whole or enforced(), listed).narrowed
    assert narrowed is not None
    assert narrowed.landlock is not None
    assert narrowed.landlock.handled & (READ | WRITE) == READ | WRITE
    return rights(narrowed.landlock)


def test_denied_is_gone_round() -> None:
    found = around(Narrowing(deny=(".env", "src/key", "secret", "later")))
    whole, listing = READ | WRITE, 1 << 3
    assert found["/"] == found["/srv"] == found["/srv/ws"] == found["/srv/ws/src"] == listing
    assert found["/srv/ws/src/a.py"] == found["/usr"] == found["/tmp"] == found["/proc"] == whole
    for path in (".env", "src/key", "secret", "link", "later"):
        assert f"/srv/ws/{path}" not in found
    assert planned(Narrowing(deny=(".env",))).temporary is None


def test_denied_within_what_is_left() -> None:
    found = around(Narrowing(reads=("src",), writes=(), deny=("src/key",)))
    assert (found["/srv/ws/src"], found["/srv/ws/src/a.py"]) == (1 << 3, READ)
    assert "/srv/ws/src/key" not in found
    assert "/" not in found
    assert found["/usr"] == READ
    assert found["/home/agent"] == READ | WRITE
    # A tree that is denied whole has no right at all.
    assert not any(path.startswith("/srv/ws") for path in around(Narrowing(deny=(".",))))


def test_private_directory_above_what_is_denied() -> None:
    whole = enforced(root=WORKSPACE)
    command = plan_narrowing(Narrowing(deny=("x",)), whole, lambda *_: {"x": False, "y": False})
    assert command.temporary == "/var/tmp"
    assert command.narrowed is not None
    assert command.narrowed.landlock is not None
    found = rights(command.narrowed.landlock)
    assert found["/tmp"] == 1 << 3
    assert found[f"{WORKSPACE.path}/y"] == READ | WRITE
    assert f"{WORKSPACE.path}/x" not in found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nowhere", "nothing that the session shows"),
        ("/tmp/x", "only its programs know"),
        ("link", "is a symlink"),
        ("link/below", "is a symlink"),
    ],
)
def test_what_cannot_be_denied(path: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        around(Narrowing(deny=(path,)))
    assert caught.value.context["field"] == "deny"


def test_too_much_beside_what_is_denied() -> None:
    many = {f"f{number}": False for number in range(1100)}
    with pytest.raises(PolicyError, match="more than 1024"):
        plan_narrowing(Narrowing(deny=("x",)), enforced(), lambda *_: many)
