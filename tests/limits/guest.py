#!/usr/bin/python3.11
"""The first process of the emulated machine: sessions with limits under control groups version 2.

It runs in the guest (see emulator.py), prints one line of JSON and powers the machine off.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 2**20
GROUPS = Path("/sys/fs/cgroup")
USER = 1001
POWER_OFF = 0x4321FEDC
MS_BIND, MS_MOVE = 4096, 8192

Answers = dict[str, object]


def mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = None if kind is None else kind.encode()
    if libc.mount(source.encode(), target.encode(), name, ctypes.c_ulong(flags), None) != 0:
        raise OSError(ctypes.get_errno(), f"mounting {target}")


def build_root() -> None:
    """A root that can be left: the kernel's first one can't."""
    mount("tmpfs", "/new", "tmpfs")
    for name in ("bin", "sbin", "lib", "lib64"):
        os.symlink(os.readlink(f"/{name}"), f"/new/{name}")
    for name in ("usr", "proc", "sys", "dev", "tmp", "etc", "root"):
        os.mkdir(f"/new/{name}")
    os.chmod("/new", 0o755)  # as that of a machine: nobody else puts anything there
    os.chmod("/new/tmp", 0o1777)
    mount("/usr", "/new/usr", None, MS_BIND)
    mount("proc", "/new/proc", "proc")
    mount("sysfs", "/new/sys", "sysfs")
    mount("devtmpfs", "/new/dev", "devtmpfs")
    os.chdir("/new")
    mount("/new", "/", None, MS_MOVE)
    os.chroot(".")
    os.chdir("/")
    for fd in range(3):  # the kernel had no console to give
        os.dup2(os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY), fd)
    mount("cgroup2", str(GROUPS), "cgroup2")


def names_below(group: Path) -> list[str]:
    """The groups of ours in a group."""
    return sorted(path.name for path in group.iterdir() if path.name.startswith("sandyard-"))


def own_group() -> str:
    return Path("/proc/self/cgroup").read_text().strip().partition("::")[2]


async def use_session(group: Path) -> Answers:
    """Meet each limit once."""
    from sandyard import Policy, ResourceLimits, UnixLocalSandboxClient  # noqa: PLC0415

    # The time is for a machine that emulates another.
    limits = ResourceLimits(memory=64 * MIB, processes=30, cpus=0.5, wall_time=90)
    client = UnixLocalSandboxClient(policy=Policy(limits=limits))
    session = await client.create()
    answers: Answers = {}
    async with session:
        answers["report"] = {held.limit: held.by for held in session.limits.report}
        answers["during"] = [own_group(), names_below(group)]
        quiet = await session.exec("true")
        answers["quiet"] = [quiet.exit_code, [hit.limit for hit in quiet.limit_hits]]
        for name, command in (
            ("memory", "python3 -c 'bytearray(200 << 20)'"),
            ("processes", "for n in $(cat); do sleep 60 & done"),
        ):
            words = b" ".join(b"%d" % n for n in range(40))
            result = await session.exec(command, stdin=words, leftovers="end")
            answers[name] = [result.exit_code, [f"{h.limit} by {h.by}" for h in result.limit_hits]]
        began = time.monotonic()
        result = await session.exec("python3", "-c", BURN, shell=False)
        used = result.usage.user_s + result.usage.system_s if result.usage else 0.0
        answers["cpu"] = [result.exit_code, used / (time.monotonic() - began)]
        (mine,) = [n for n in names_below(group) if not n.startswith("sandyard-host-")]
        files = ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max")
        there = [file for file in files if (group / mine / file).exists()]
        answers["settings"] = {file: (group / mine / file).read_text().strip() for file in there}
    await client.delete(session)
    answers["after"] = [own_group(), names_below(group)]
    answers["shared"] = (group / "cgroup.subtree_control").read_text().split()
    return answers


async def use_others() -> Answers:
    """Meet each limit once that no control group holds; they are told beside those that one does."""
    from sandyard import (  # noqa: PLC0415
        ExecTimeoutError,
        Policy,
        ResourceLimitError,
        ResourceLimits,
        UnixLocalSandboxClient,
    )

    whole = {"memory": 64 * MIB}
    fill = "for n in 1 2 3 4 5 6 7 8 9 10; do head -c 1000000 /dev/zero > $n; done; sleep 600"
    attempts: tuple[tuple[str, int, tuple[str, ...]], ...] = (
        ("cpu_time", 1, ("python3", "-c", BURN)),
        ("file_size", 2 * MIB, ("sh", "-c", "exec head -c 3000000 /dev/zero > f")),
        ("output", 4096, ("head", "-c", "100000", "/dev/zero")),
        ("wall_time", 1, ("sleep", "600")),
        ("workspace_size", 8 * MIB, ("sh", "-c", fill)),
    )
    answers: Answers = {}
    for name, value, words in attempts:
        limits = ResourceLimits(**whole, **{name: value})
        client = UnixLocalSandboxClient(policy=Policy(limits=limits))
        session = await client.create()
        async with session:
            try:
                result = await session.exec(*words, shell=False)
            except (ExecTimeoutError, ResourceLimitError) as error:
                if error.result is None:
                    raise
                result = error.result
            answers[name] = [hit.limit for hit in result.limit_hits]
        await client.delete(session)
    return answers


BURN = """
import time
while time.process_time() < 2: pass
"""


async def use_refused() -> Answers:
    """What is said where the program is not alone in its group."""
    from sandyard import (  # noqa: PLC0415
        ConfinementUnavailableError,
        Policy,
        ResourceLimits,
        UnixLocalSandboxClient,
    )

    answers: Answers = {}
    client = UnixLocalSandboxClient(policy=Policy(limits=ResourceLimits(cpus=0.5)))
    session = await client.create()
    try:
        await session.start()
    except ConfinementUnavailableError as error:
        answers["cpus"] = str(error)
    await client.delete(session)
    client = UnixLocalSandboxClient(policy=Policy(limits=ResourceLimits(memory=64 * MIB)))
    session = await client.create()
    async with session:
        answers["report"] = [
            [held.by, held.strength] for held in session.limits.report if held.limit == "memory"
        ]
    await client.delete(session)
    answers["group"] = own_group()
    return answers


def in_group(group: Path, work: object, *, company: bool = False) -> Answers:
    """Run work as an ordinary user, in a group that is delegated to it."""
    group.mkdir(exist_ok=True)
    group.chmod(0o755)  # the topmost one is nobody's to write in
    for name in ("", "cgroup.procs", "cgroup.subtree_control"):
        os.chown(group / name, USER, USER)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        answers: Answers = {}
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, which setresuid has cleared
            os.environ["HOME"] = "/home/user"
            other = os.fork() if company else 0
            if company and other == 0:
                os.close(write)
                time.sleep(3600)
            assert callable(work)
            answers = asyncio.run(work())
            if company:
                os.kill(other, 9)
        except BaseException:  # noqa: BLE001  # the host is to read it, whatever it is
            answers["error"] = traceback.format_exc()
        os.write(write, json.dumps(answers).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        told: Answers = json.loads(file.read())
    os.waitpid(pid, 0)
    return told


@contextmanager
def power_off(answers: Answers) -> Iterator[None]:
    """Print the answers at the end of a block, whatever becomes of it, and switch the machine off."""
    try:
        yield
    except BaseException:  # noqa: BLE001  # the host is to read it, whatever it is
        answers["error"] = traceback.format_exc()
    with open("/dev/ttyS0", "w", encoding="utf-8") as console:
        console.write("\nRESULT " + json.dumps(answers) + "\n")
    sys.stdout.flush()
    ctypes.CDLL(None).reboot(POWER_OFF)


def main() -> None:
    answers: Answers = {}
    with power_off(answers):
        build_root()
        os.environ.update(HOME="/root", PATH="/usr/bin", TMPDIR="/tmp")
        (GROUPS / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        os.makedirs("/home/user")
        os.chown("/home/user", USER, USER)
        delegated, crowded = GROUPS / "delegated", GROUPS / "crowded"
        answers["delegated"] = in_group(delegated, lambda: use_session(delegated))
        answers["others"] = in_group(delegated, use_others)
        answers["crowded"] = in_group(crowded, use_refused, company=True)
        answers["topmost"] = in_group(GROUPS, lambda: use_session(GROUPS))


if __name__ == "__main__":
    main()
