"""Plans as whole values, on three hosts, and what a policy changes in them."""

from __future__ import annotations

import dataclasses

import pytest

from sandyard.confinement import WorkspaceRoot, plan_session
from sandyard.confinement.etc import BUILT_FILES
from sandyard.confinement.seccomp import seccomp_program
from sandyard.errors import ConfinementUnavailableError, PolicyError
from sandyard.plan import (
    Bind,
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
    Private,
    Proc,
    ReadOnly,
    ResourceLimit,
    Scratch,
    Symlink,
    TextFile,
)
from sandyard.platform import HostFacts
from sandyard.policy import Policy
from tests.confinement.hosts import (
    ARM_BARE,
    DEBIAN_ROOT,
    GIB,
    HOSTS,
    MIB,
    OLD_USER,
    WORKSPACE,
    grant,
)

ALL = Namespaces(0x7E020000)
LIMITS = (ResourceLimit(4, 1), ResourceLimit(6, 4096), ResourceLimit(7, 4096))
WORKSPACE_BIND = Bind("/tmp/ws", "/tmp/ws", writable=True, as_owner=True, inode=(7, 42))


def read_only(path: str) -> Bind:
    return Bind(path, path)


def shared(path: str) -> Bind:
    return Bind(path, path, optional=True)


def device(name: str) -> Bind:
    return Bind(f"/dev/{name}", f"/dev/{name}", devices=True)


def accounts(shell: str) -> tuple[TextFile, TextFile]:
    group = TextFile("/etc/group", b"root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n")
    passwd = TextFile(
        "/etc/passwd",
        f"root:x:0:0:root:/root:{shell}\n"
        f"agent:x:1000:1000:agent:/home/agent:{shell}\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n".encode(),
    )
    return group, passwd


HOSTNAME = TextFile("/etc/hostname", b"sandyard\n")
HOSTS_FILE = TextFile(
    "/etc/hosts",
    b"127.0.0.1 localhost sandyard\n::1 localhost ip6-localhost ip6-loopback\n",
)
MACHINE_ID = TextFile("/etc/machine-id", b"73616e647961726473616e6479617264\n")
MTAB = Symlink("/etc/mtab", "/proc/self/mounts")
NSSWITCH = TextFile(
    "/etc/nsswitch.conf",
    b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
    b"protocols: files\nservices: files\n",
)
RESOLV = TextFile("/etc/resolv.conf", b"")

PROC: tuple[MountStep, ...] = (
    Proc(),
    Mask("/proc/kallsyms"),
    Mask("/proc/kcore"),
    Mask("/proc/key-users"),
    Mask("/proc/keys"),
    Mask("/proc/sched_debug"),
    ReadOnly("/proc/sys"),
    Mask("/proc/sysrq-trigger"),
    Mask("/proc/timer_list"),
)


def devices() -> tuple[MountStep, ...]:
    return (
        Directory("/dev"),
        Symlink("/dev/fd", "/proc/self/fd"),
        device("full"),
        device("null"),
        Symlink("/dev/ptmx", "pts/ptmx"),
        DevPts(),
        device("random"),
        Private("/dev/shm", 0o1777),
        Symlink("/dev/stderr", "/proc/self/fd/2"),
        Symlink("/dev/stdin", "/proc/self/fd/0"),
        Symlink("/dev/stdout", "/proc/self/fd/1"),
        device("tty"),
        device("urandom"),
        device("zero"),
    )


PRIVATE_RULES = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/home/agent")


def test_debian_as_root() -> None:
    group, passwd = accounts("/bin/bash")
    everything = 0xFFFF
    assert plan_session(Policy(), DEBIAN_ROOT, WORKSPACE, ()) == LaunchPlan(
        identity=Identity(1000, 1000, HostIdentity.LEASED),
        namespaces=ALL,
        hostname="sandyard",
        loopback=True,
        scratch=Scratch(4 * GIB, 262144),
        steps=(
            Symlink("/bin", "usr/bin"),
            *devices(),
            group,
            HOSTNAME,
            HOSTS_FILE,
            shared("/etc/ld.so.cache"),
            Symlink("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
            MACHINE_ID,
            MTAB,
            NSSWITCH,
            passwd,
            RESOLV,
            shared("/etc/ssl/certs"),
            Private("/home/agent", 0o700),
            Symlink("/lib", "usr/lib"),
            Symlink("/lib64", "usr/lib64"),
            Symlink("/opt/py", "/root/.pyenv"),
            *PROC,
            Directory("/root"),
            shared("/root/.cargo/bin"),
            shared("/root/.pyenv"),
            Mask("/root/.pyenv/pip.conf"),
            shared("/root/.rustup"),
            Private("/run", 0o755),
            Symlink("/sbin", "usr/sbin"),
            read_only("/sys/devices/system/cpu"),
            read_only("/sys/devices/system/node"),
            Private("/tmp", 0o1777),
            WORKSPACE_BIND,
            read_only("/usr"),
            Mask("/usr/local/etc/npmrc"),
            Symlink("/var/run", "/run"),
            Private("/var/tmp", 0o1777),
        ),
        limits=LIMITS,
        landlock=LandlockRuleset(
            handled=everything,
            scoped=0b11,
            rules=(
                LandlockRule("/", 0b1101),
                LandlockRule("/dev", 0b1101 - 1 | 0b10 | 1 << 15),
                LandlockRule("/proc", 0b1111 | 1 << 14),
                *(LandlockRule(path, everything) for path in (*PRIVATE_RULES, "/tmp/ws")),
            ),
        ),
        seccomp=seccomp_program("x86_64"),
    )


def test_old_system_as_user() -> None:
    group, passwd = accounts("/bin/sh")
    everything = 0x3FFF
    assert plan_session(Policy(), OLD_USER, WORKSPACE, ()) == LaunchPlan(
        identity=Identity(1000, 1000, HostIdentity.CALLER),
        namespaces=ALL,
        hostname="sandyard",
        loopback=True,
        scratch=Scratch(256 * MIB, 16384),
        steps=(
            read_only("/bin"),
            *devices(),
            group,
            HOSTNAME,
            HOSTS_FILE,
            shared("/etc/ld-musl-x86_64.path"),
            MACHINE_ID,
            MTAB,
            NSSWITCH,
            passwd,
            RESOLV,
            Bind("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", optional=True),
            Private("/home/agent", 0o700),
            read_only("/lib"),
            Symlink("/lib64", "lib"),
            *PROC,
            Directory("/root"),
            Private("/run", 0o755),
            Private("/tmp", 0o1777),
            WORKSPACE_BIND,
            read_only("/usr"),
            Symlink("/var/run", "/run"),
            Private("/var/tmp", 0o1777),
        ),
        limits=LIMITS,
        landlock=LandlockRuleset(
            handled=everything,
            scoped=0,
            rules=(
                LandlockRule("/", 0b1101),
                LandlockRule("/dev", 0b1110),
                LandlockRule("/proc", 0b1111),
                *(LandlockRule(path, everything) for path in (*PRIVATE_RULES, "/tmp/ws")),
            ),
        ),
        seccomp=seccomp_program("x86_64"),
    )


def test_arm_without_landlock() -> None:
    group, passwd = accounts("/bin/bash")
    assert plan_session(Policy(), ARM_BARE, WORKSPACE, ()) == LaunchPlan(
        identity=Identity(1000, 1000, HostIdentity.CALLER),
        namespaces=ALL,
        hostname="sandyard",
        loopback=True,
        scratch=Scratch(512 * GIB, 1024 * 1024),
        steps=(
            Symlink("/bin", "usr/bin"),
            *devices(),
            Symlink("/etc/fonts", "/nix/store/abc-etc/fonts"),
            group,
            HOSTNAME,
            HOSTS_FILE,
            MACHINE_ID,
            MTAB,
            NSSWITCH,
            passwd,
            RESOLV,
            Private("/home/agent", 0o700),
            shared("/home/agent/.venv"),
            read_only("/nix/store"),
            *PROC,
            Directory("/root"),
            Private("/run", 0o755),
            Private("/tmp", 0o1777),
            WORKSPACE_BIND,
            read_only("/usr"),
            Symlink("/var/run", "/run"),
            Private("/var/tmp", 0o1777),
        ),
        limits=LIMITS,
        landlock=None,
        seccomp=seccomp_program("aarch64"),
    )


def changes(
    policy: Policy, facts: HostFacts, *grants: tuple[str, bool]
) -> tuple[set[MountStep], set[MountStep]]:
    """What ``policy`` adds to the plan's steps, and what it removes."""
    found = tuple(grant(path, writable=writable) for path, writable in grants)
    with_it = set(plan_session(policy, facts, WORKSPACE, found).steps)
    without = set(plan_session(Policy(), facts, WORKSPACE, ()).steps)
    return with_it - without, without - with_it


@pytest.mark.parametrize("facts", HOSTS)
def test_grants_are_added_as_their_owner(facts: HostFacts) -> None:
    policy = Policy(reads=("/srv/in",), writes=("/srv/out",))
    added, removed = changes(policy, facts, ("/srv/in", False), ("/srv/out", True))
    assert added == {
        Bind("/srv/in", "/srv/in", as_owner=True, inode=(7, 1)),
        Bind("/srv/out", "/srv/out", writable=True, as_owner=True, inode=(7, 1)),
    }
    assert not removed


def test_audit_hears_where_it_can_be_read() -> None:
    for audited in (True, False):
        plan = plan_session(
            Policy(), dataclasses.replace(DEBIAN_ROOT, audited=audited), WORKSPACE, ()
        )
        assert plan.landlock is not None
        assert plan.landlock.logged is audited
    bare = plan_session(Policy(), dataclasses.replace(ARM_BARE, audited=True), WORKSPACE, ())
    assert bare.landlock is None


def test_written_trees_are_landlock_rules() -> None:
    found = (grant("/srv/in"), grant("/srv/out", writable=True))
    policy = Policy(reads=("/srv/in",), writes=("/srv/out",))
    landlock = plan_session(policy, DEBIAN_ROOT, WORKSPACE, found).landlock
    assert landlock is not None
    assert [rule.path for rule in landlock.rules] == [
        "/", "/dev", "/proc", *PRIVATE_RULES, "/srv/out", "/tmp/ws",
    ]  # fmt: skip


def test_toolchains_can_be_left_out() -> None:
    added, removed = changes(Policy(toolchains=False), DEBIAN_ROOT)
    assert not added
    assert removed == {
        Symlink("/opt/py", "/root/.pyenv"),
        Mask("/root/.pyenv/pip.conf"),
        Mask("/usr/local/etc/npmrc"),
        shared("/root/.cargo/bin"),
        shared("/root/.pyenv"),
        shared("/root/.rustup"),
    }


def test_host_network() -> None:
    plan = plan_session(Policy(network="host"), DEBIAN_ROOT, WORKSPACE, ())
    assert plan.namespaces == ALL & ~Namespaces.NET
    assert not plan.loopback
    assert plan.landlock is not None
    assert plan.landlock.scoped & 1
    assert plan.seccomp == seccomp_program("x86_64")
    added, removed = changes(Policy(network="host"), DEBIAN_ROOT)
    assert added == {
        Bind("/run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf", optional=True),
        shared("/etc/hosts"),
    }
    assert removed == {HOSTS_FILE, RESOLV}


@pytest.mark.parametrize("facts", [OLD_USER, ARM_BARE])
def test_host_network_without_scopes_closes_unix_sockets(facts: HostFacts) -> None:
    plan = plan_session(Policy(network="host"), facts, WORKSPACE, ())
    assert plan.seccomp == seccomp_program(facts.machine, unix_sockets=False)
    assert plan.seccomp != seccomp_program(facts.machine)


@pytest.mark.parametrize("facts", HOSTS)
def test_equal_inputs_give_equal_plans(facts: HostFacts) -> None:
    first = plan_session(Policy(), facts, WORKSPACE, ())
    second = plan_session(Policy(), dataclasses.replace(facts), WORKSPACE, ())
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("facts", HOSTS)
def test_built_files_are_the_ones_that_are_guarded(facts: HostFacts) -> None:
    steps = plan_session(Policy(), facts, WORKSPACE, ()).steps
    built = {step.path for step in steps if isinstance(step, TextFile)} | {"/etc/mtab"}
    assert built == set(BUILT_FILES)


def test_only_linux_is_planned() -> None:
    with pytest.raises(ConfinementUnavailableError, match="darwin"):
        plan_session(Policy(), dataclasses.replace(DEBIAN_ROOT, system="darwin"), WORKSPACE, ())


def test_unknown_processor_is_refused() -> None:
    facts = dataclasses.replace(DEBIAN_ROOT, machine="riscv64")
    with pytest.raises(ConfinementUnavailableError, match="riscv64"):
        plan_session(Policy(), facts, WORKSPACE, ())


@pytest.mark.parametrize(
    "found",
    [(), (grant("/srv/b"),), (grant("/srv/a", writable=True),), (grant("/srv/a"), grant("/srv/b"))],
)
def test_grants_of_another_policy_are_refused(found: tuple[object, ...]) -> None:
    with pytest.raises(PolicyError, match="not those of the policy"):
        plan_session(Policy(reads=("/srv/a",)), DEBIAN_ROOT, WORKSPACE, found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "/", "/usr", "/etc", "/bin", "/lib", "/home", "/var", "/opt", "/usr/bin", "/tmp", "/run",
        "/var/tmp", "/home/agent", "/dev", "/dev/shm", "/dev/shm/x", "/proc", "/proc/1", "/sys",
        "/sys/fs/x", "/etc/passwd", "/var/run/x", "/bin/x", "/opt/py/x", "relative", "/a/../b",
        "/a//b", "/a/", "",
    ],
)  # fmt: skip
def test_impossible_workspaces_are_refused(path: str) -> None:
    with pytest.raises(PolicyError) as caught:
        plan_session(Policy(), DEBIAN_ROOT, WorkspaceRoot(path, "/srv/ws", (1, 2)), ())
    assert caught.value.context["field"] == "root"
    if path != "/opt/py/x" and not path.startswith(("/bin/", "/var/run/")):  # links inside only
        with pytest.raises(PolicyError):
            plan_session(Policy(), DEBIAN_ROOT, WorkspaceRoot("/srv/ws", path, (1, 2)), ())


@pytest.mark.parametrize("path", ["/usr/src/app", "/root", "/root/x", "/home/me", "/w", "/run/w"])
def test_unusual_workspaces_are_fine(path: str) -> None:
    plan = plan_session(Policy(), DEBIAN_ROOT, WorkspaceRoot(path, path, (1, 2)), ())
    assert Bind(path, path, writable=True, as_owner=True, inode=(1, 2)) in plan.steps


def test_workspace_may_lie_elsewhere_on_the_host() -> None:
    plan = plan_session(Policy(), DEBIAN_ROOT, WorkspaceRoot("/home/me/w", "/data/f", (1, 2)), ())
    assert Bind("/data/f", "/home/me/w", writable=True, as_owner=True, inode=(1, 2)) in plan.steps
