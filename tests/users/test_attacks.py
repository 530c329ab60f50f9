"""What one user of a session tries against another, or to become more; each beside what works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandyard import ArgumentError, Manifest, Policy, UnixLocalSandboxSession
from tests.users.conftest import PEOPLE, is_refused, people, said

pytestmark = pytest.mark.root

Session = UnixLocalSandboxSession

BECOME = """
import ctypes, os, sys
tried = []
for call in (
    lambda: os.setresuid({uid}, {uid}, {uid}),
    lambda: os.setresgid({uid}, {uid}, {uid}),
    lambda: os.setgroups([{uid}]),
    lambda: os.setuid(0),
    lambda: os.chown("/tmp/own", {uid}, -1),
    lambda: os.chown("/tmp/own", -1, {uid}),
):
    try:
        call()
    except OSError as error:
        tried.append(error.errno)
    else:
        tried.append(0)
libc = ctypes.CDLL(None)
libc.setfsuid({uid})
tried.append(libc.setfsuid(-1) & 0xFFFFFFFF)
print(*tried)
"""


@pytest.mark.parametrize(("user", "own", "uid"), [(None, 1000, 1001), ("reviewer", 1001, 1000)])
async def test_nobody_becomes_another(
    session: Session, user: str | None, own: int, uid: int
) -> None:
    await session.write("become.py", BECOME.format(uid=uid).encode())
    await said(session, "touch /tmp/own", user)
    answer = (await said(session, "python3 become.py", user)).split()
    assert answer == ["1", "1", "1", "22", "1", "1", str(own)], "22: there is no root inside"
    same = BECOME.format(uid=own).replace("os.setgroups", "(lambda _: None)")
    await session.write("become.py", same.replace("os.setuid(0)", f"os.setuid({own})").encode())
    assert (await said(session, "python3 become.py", user)).split() == ["0"] * 6 + [str(own)]


@pytest.mark.parametrize(
    ("attacker", "victim"), [(None, "reviewer"), ("reviewer", None), ("other", "reviewer")]
)
async def test_files_and_processes_are_closed(
    session: Session, attacker: str | None, victim: str | None
) -> None:
    name = victim or "agent"
    secret = "mkdir -m 777 /tmp/d; umask 077; echo key > /tmp/d/key; echo key > ~/key; sleep 600 & echo $!"
    pid = await said(session, secret, victim)
    for attempt in (
        "cat /tmp/d/key",
        f"cat /home/{name}/key",
        f"ls /home/{name}",
        f"touch /home/{name}/new",
        "chmod 777 /tmp/d/key",
        f"kill -9 {pid}",
        f"kill -STOP {pid}",
        f"cat /proc/{pid}/environ",
        f"ls /proc/{pid}/fd/",
        f"cat /proc/{pid}/mem",
        f"echo 1000 > /proc/{pid}/oom_score_adj",
        f"ls /proc/{pid}/root/",
        f"renice 10 {pid}",
    ):
        assert await is_refused(session, attempt, attacker), attempt
        if "mem" not in attempt:
            assert not await is_refused(session, attempt.replace("-9", "-0"), victim), attempt
            await session.exec(f"chmod 600 /tmp/d/key; kill -CONT {pid}", user=victim)


TRACE = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def attached(pid):
    if libc.ptrace(16, pid, 0, 0) != 0:
        return ctypes.get_errno()
    os.waitpid(pid, 0x40000000)
    return libc.ptrace(17, pid, 0, 0)
child = os.fork()
if child == 0:
    signal.pause()
def written(pid):
    try:
        with open(f"/proc/{pid}/mem", "r+b"):
            return 0
    except OSError as error:
        return error.errno
others = [int(name) for name in os.listdir("/proc") if name.isdigit()]
others = [pid for pid in others if pid not in (child, os.getpid()) and "sh" != open(f"/proc/{pid}/comm").read().strip()]
assert len(others) >= 3, others
print(attached(child), *sorted({answer for pid in others for answer in (attached(pid), written(pid))}))
os.kill(child, 9)
"""


async def test_powers_can_not_be_borrowed() -> None:
    # The first process and the keepers have capabilities that commands have not.
    async with people(policy=Policy(syscalls=("ptrace",))) as session:
        await session.write("trace.py", TRACE.encode())
        await session.exec("sleep 600 &", user="reviewer")
        held = "grep -h CapEff /proc/1/status /proc/2/status | sort -u"
        assert await said(session, held) == f"CapEff:\t{1 << 5 | 1 << 6 | 1 << 7:016x}"
        for user in (None, "other"):
            answers = (await said(session, "exec python3 trace.py", user)).split()
            assert answers[0] == "0", "the control: its own child"
            assert set(answers[1:]) <= {"1", "13"}, answers


async def test_powers_are_there_for_several() -> None:
    async with people(Manifest()) as session:
        assert (
            await said(session, "grep -h CapEff /proc/[12]/status | sort -u")
            == f"CapEff:\t{0:016x}"
        )


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Two directories of the caller's that everybody may write to, each with a file of its own."""
    made = tmp_path / "work", tmp_path / "given"
    tmp_path.chmod(0o755)
    for place in made:
        place.mkdir()
        place.chmod(0o777)
        (place / "file").write_text("the caller's")
        (place / "file").chmod(0o600)
    return made


async def test_disk_of_the_host_is_safe(places: tuple[Path, Path]) -> None:
    root, given = places
    manifest = Manifest(root=str(root), **PEOPLE)  # type: ignore[arg-type]
    async with people(manifest, Policy(writes=(str(given),))) as session:
        for place in places:
            await said(
                session,
                f"echo mine > {place}/made; mkdir {place}/tree; touch {place}/tree/x",
                "other",
            )
            for attempt in (f"cat {place}/file", f"chmod 777 {place}/made2"):
                await said(session, f"touch {place}/made2")
                assert await is_refused(session, attempt, "other"), attempt
            assert (
                await said(session, f"stat -c %U {place}/made {place}/file", "other")
                == "other\nagent"
            )
            owners = {(place / name).stat().st_uid for name in ("made", "tree", "tree/x")}
            assert len(owners) == 1
            assert min(owners) > 65_536, "an id that no account of the host has"
            assert (place / "file").stat().st_uid == (place / "made2").stat().st_uid == 0
            setuid = await session.exec(f"chmod 4755 {place}/made", user="other")
            assert setuid.exit_code != 0
    assert (root / "made").read_text() == "mine\n"


async def test_tree_of_another_can_be_given(places: tuple[Path, Path]) -> None:
    # Its owner on disk is one of the session's own ids there, and is mapped once: as agent.
    root, given = places
    async with people(Manifest(root=str(root), **PEOPLE)) as session:  # type: ignore[arg-type]
        await said(session, "mkdir -m 755 tree; touch tree/file", "other")
    tree = root / "tree"
    owner = tree.stat().st_uid
    manifest = Manifest(root=str(given), **PEOPLE)  # type: ignore[arg-type]
    async with people(manifest, Policy(writes=(str(tree),))) as session:
        assert await said(session, f"touch {tree}/new; stat -c %U {tree}/new {tree}/file") == (
            "agent\nagent"
        )
        # Where the owner's id is taken, the kernel knows none on disk for the others (EOVERFLOW).
        refused = await session.exec(f"touch {tree}/no", user="reviewer")
        assert b"Value too large" in refused.stderr
    assert (tree / "new").stat().st_uid == owner


async def test_private_place_lets_nobody_else_in(session: Session) -> None:
    mode = os.stat(session.state.manifest.root).st_mode
    assert mode & 0o007 == 0
    assert await said(session, "pwd", "other") == session.state.manifest.root
    assert await is_refused(session, "touch new", "other")
    await said(session, "chmod 700 .")  # the owner decides, as anywhere
    with pytest.raises(ArgumentError, match="can't be entered"):
        await session.exec("true", user="reviewer")
    away = await session.exec("true", user="reviewer", cwd="/tmp")
    assert away.exit_code == 0
