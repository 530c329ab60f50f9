"""What is told of a path is what a confined command gets there: policies by hundreds of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard import Policy
from tests.explain.probing import explained, opened, probe

SYSTEM = (
    "/", "/bin", "/bin/sh", "/boot", "/etc", "/etc/group", "/etc/hostname", "/etc/hosts",
    "/etc/machine-id", "/etc/mtab", "/etc/passwd", "/etc/resolv.conf", "/etc/shadow", "/etc/ssl",
    "/etc/ssl/certs", "/etc/ssl/private", "/etc/new", "/home", "/home/agent", "/home/agent/new",
    "/home/new", "/lib", "/new", "/opt/new", "/root", "/root/.ssh", "/root/new", "/run", "/run/new",
    "/run/new/er", "/srv", "/tmp", "/tmp/new", "/usr", "/usr/bin", "/usr/bin/env", "/usr/local",
    "/usr/new", "/var", "/var/log", "/var/run", "/var/run/new", "/var/tmp", "/var/tmp/new",
    "/usr/bin/../../etc/shadow", "/usr/../tmp/new", "//usr//bin/./env",
)  # fmt: skip
KERNEL = (
    "/dev", "/dev/fd", "/dev/full", "/dev/kvm", "/dev/mem", "/dev/new", "/dev/null", "/dev/ptmx",
    "/dev/pts", "/dev/pts/ptmx", "/dev/pts/new/er", "/dev/random", "/dev/shm", "/dev/shm/new",
    "/dev/urandom", "/dev/zero", "/proc", "/proc/1/cwd", "/proc/1/environ", "/proc/1/maps",
    "/proc/1/root", "/proc/1/root/etc/shadow", "/proc/meminfo", "/proc/mounts", "/proc/self/comm",
    "/proc/self/cwd/new", "/proc/self/oom_score_adj", "/proc/self/root/etc/passwd",
    "/proc/self/root/etc/shadow", "/proc/self/root/tmp/new", "/proc/self/root/usr/bin/env",
    "/proc/sys", "/proc/sys/kernel", "/proc/sys/kernel/ostype", "/proc/thread-self/comm", "/sys",
    "/sys/class", "/sys/devices", "/sys/devices/system", "/sys/devices/system/cpu",
    "/sys/devices/system/cpu/online", "/sys/kernel",
)  # fmt: skip


def walk_names(top: Path) -> Iterator[str]:
    """All that is there, a new name in each directory, and ways through the symlinks."""
    for place, directories, files in os.walk(top):
        yield place
        yield f"{place}/new"
        yield f"{place}/no/such"
        yield from (f"{place}/{name}" for name in (*directories, *files))
    for way in (
        "ws/to-data/file", "ws/to-data/new", "ws/to-data/to-hidden/file", "ws/to-data/to-sub/new",
        "ws/to-etc/shadow", "ws/to-etc/passwd", "ws/a/up/a/up/secret/file", "ws/a/to-deep/file",
        "ws/a/up/../data/file", "ws/../ws/a/file", "ws/to-data/../hidden/file", "named/sub/file",
        "named/new", "way/data/file", "way/ws/new", "ws/to-self/x", "ws/secret/../a/file",
    ):  # fmt: skip
        yield f"{top}/{way}"


POLICIES: dict[str, dict[str, object]] = {
    "default": {},
    "reads": {"reads": ("data",)},
    "reads a file": {"reads": ("data/sub/file",)},
    "writes": {"writes": ("data",)},
    "writes a file": {"writes": ("data/sub/file",)},
    "writes in reads": {"reads": ("data",), "writes": ("data/sub",)},
    "reads in writes": {"writes": ("data",), "reads": ("data/sub",)},
    "three deep": {"writes": ("data", "data/sub/deep"), "reads": ("data/sub", "data/sub/deep/er")},
    "both": {"writes": ("data",), "reads": ("data",)},
    "by another name": {"reads": ("named",)},
    "by a way around": {"writes": ("way/data/sub",)},
    "reads in workspace": {"reads": ("ws/a/deep",)},
    "workspace in writes": {"writes": ("ws/a", "hidden")},
    "deny in workspace": {"deny": ("ws/secret", "ws/a/file")},
    "deny in reads": {"reads": ("data",), "deny": ("data/sub/deep",)},
    "deny over writes": {"writes": ("data", "data/sub"), "deny": ("data/sub",)},
    "deny a file": {"writes": ("data",), "deny": ("data/sub/file", "hidden")},
    "deny by another name": {"reads": ("data",), "deny": ("named/sub",)},
    "deny what is shown": {"deny": ("/usr/bin/find", "/usr/share")},
    "protects nothing": {"protect": ()},
    "protects others": {"protect": ("secret", "a/deep"), "writes": ("data",)},
    "no toolchains": {"toolchains": False},
    "with network": {"network": "host"},
    "home is workspace": {"home": "workspace"},
}


def make_policy(top: Path, fields: dict[str, object]) -> Policy:
    """A policy whose paths lie in ``top``."""
    values = dict(fields)
    for field in ("reads", "writes", "deny"):
        named = values.get(field, ())
        assert isinstance(named, tuple)
        values[field] = tuple(os.path.join(top, path) for path in named)
    return Policy(**values)  # type: ignore[arg-type]  # fields of a table


@pytest.mark.parametrize("name", POLICIES)
async def test_told_is_what_is(top: Path, name: str) -> None:
    paths = list(dict.fromkeys((*walk_names(top), *SYSTEM, *KERNEL)))
    if name == "deny what is shown":
        paths += ["/usr/share", "/usr/share/doc", "/usr/share/new"]
    async with opened(top / "ws", make_policy(top, POLICIES[name])) as session:
        real, told = await probe(session, paths), await explained(session, paths)
    assert len(paths) > 200
    assert compare(real, told) == {}


def compare(real: dict[str, str], told: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Where they differ; of what does not exist only writing can be told by trying."""
    return {
        path: (real[path], told[path])
        for path in real
        if real[path] != told[path]
        and not (real[path] == "none" and told[path] != "none" and _is_missing(path, told[path]))
    }


def _is_missing(path: str, told: str) -> bool:
    """Whether a path that could not be used is one that nothing could use."""
    if ".." in path.split("/") and os.geteuid() != 0:
        return True  # by a directory in /tmp that an ordinary user's command could have made
    if told == "write":  # it could be made where its directory is
        return not os.path.lexists(os.path.dirname(os.path.realpath(path)))
    return not os.path.exists(path)


@pytest.mark.parametrize(
    "fields",
    [{}, {"reads": ("ws/a/deep",)}, {"deny": ("ws/secret",)}, {"writes": ("data",)}],
    ids=str,
)
async def test_workspace_by_way_around(top: Path, fields: dict[str, object]) -> None:
    paths = list(dict.fromkeys(walk_names(top)))
    paths += [f"{top}/way/ws{path.removeprefix(f'{top}/ws')}" for path in paths if "/ws/" in path]
    async with opened(top / "way" / "ws", make_policy(top, fields)) as session:
        real, told = await probe(session, paths), await explained(session, paths)
        (elsewhere,) = [await session.why(f"{top}/ws/a/file")]
    assert compare(real, told) == {}
    if os.geteuid() == 0:  # an ordinary user's command could make such a file in its own /tmp
        assert f"the workspace is {top}/way/ws inside" in elsewhere.rule


async def test_masked_reads_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain = tmp_path / "toolchain"
    for name in ("bin/tool", "pyvenv.cfg", "pip.conf", "lib/code.py"):
        (toolchain / name).parent.mkdir(parents=True, exist_ok=True)
        (toolchain / name).write_text("password\n")
    monkeypatch.setenv("PATH", f"{toolchain}/bin:{os.environ['PATH']}")
    secret, code = f"{toolchain}/pip.conf", f"{toolchain}/lib/code.py"
    async with opened(None, Policy()) as session:
        seen = await session.exec("cat", secret, code)
        told, beside = await session.why(secret), await session.why(code)
    assert seen.stdout == b"password\n"  # of the code
    assert (told.access, told.grant) == ("none", f"Policy(reads=({secret!r},))")
    assert (beside.access, beside.grant) == ("read", f"Policy(writes=({code!r},))")
    async with opened(None, Policy(reads=(secret,))) as session:
        assert (await session.exec("cat", secret)).stdout == b"password\n"
        assert (await session.why(secret)).access == "read"


MOVES = {
    "ws/.git": True,
    "ws/.git/config": True,
    "ws/.git/HEAD": False,
    "ws/.git/hooks": True,
    "ws/.git/info": True,
    "ws/.git/info/attributes": True,
    "ws/.git/info/exclude": False,
    "ws/.vscode": True,
    "ws/a": False,
    "ws/a/deep": True,
    "ws/to-data": False,
    "data": True,
    "data/sub": False,
}
"""What is a mount of its own, and so can't be moved."""


async def test_fixed_is_what_stays(top: Path) -> None:
    policy = Policy(
        reads=(f"{top}/ws/a/deep",), writes=(f"{top}/data",), protect=(".git", ".vscode")
    )
    async with opened(top / "ws", policy) as session:
        told = {path: (await session.why(f"{top}/{path}")).fixed for path in MOVES}
        real = {}
        for path in MOVES:
            at = f"{top}/{path}"
            done = await session.exec(f"mv -T {at} {at}.away && mv -T {at}.away {at}")
            real[path] = done.exit_code != 0
            if path not in {"data", "ws/to-data"}:  # which lead elsewhere
                assert [d.subject for d in done.denials][:1] == [at] * real[path], done.stderr
    assert real == MOVES
    assert told | {"ws/to-data": False} == MOVES
