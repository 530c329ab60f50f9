"""Mounts under attack: by what is in them, by who moves what leads to them, by the host's death."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandyard import (
    BindMount,
    LocalSnapshotSpec,
    Manifest,
    MountConfigError,
    OverlayMount,
    SandboxError,
    StoreSnapshotSpec,
    TmpfsMount,
    UnixLocalSandboxClient,
)
from tests.mounts.conftest import Opened, inner_mounts, output
from tests.session.host import find_survivors, make_token, root_of

MIB = 2**20
PATIENCE_S = 20

MOVER = """
import os, signal
signal.alarm(60)
os.makedirs("out/data", exist_ok=True)
while True:
    for act in (
        lambda: os.rename("a", "b"),
        lambda: os.symlink("/tmp", "a"),
        lambda: os.unlink("a"),
        lambda: os.symlink("out", "a"),
        lambda: os.unlink("a"),
        lambda: os.rename("b", "a"),
        lambda: os.rmdir("a/data"),
        lambda: os.symlink("../out/data", "a/data"),
        lambda: os.unlink("a/data"),
        lambda: os.mkdir("a/data"),
    ):
        try:
            act()
        except OSError:
            pass
"""


async def test_moving_targets_hold_nothing(opened: Opened, source: Path) -> None:
    """Whatever commands do to the way there, a mount stands where it was asked for, or nowhere."""
    async with opened() as session:
        await session.mkdir("a/data", parents=True)
        mover = await session.start_process("python3", "-c", MOVER, shell=False)
        stood = refused = 0
        while stood + refused < 60 or not refused:
            try:
                where = await session.mount("a/data", BindMount(source=source, read_only=False))
            except SandboxError:
                refused += 1
                continue
            assert where == f"{root_of(session)}/a/data"
            stood += 1
            for _ in range(1000):
                try:
                    await session.unmount(where)
                    break
                except SandboxError:  # its directory is elsewhere at this moment
                    continue
        await mover.close()
        assert session.mounts() == {}
        assert await inner_mounts(session) == []
        told = await output(
            session, "cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/tmp$'; ls /tmp"
        )
        assert told.split()[0] == "1"  # nothing landed on the sandbox's own directories
        assert sorted(os.listdir(source)) == ["deep", "file"]


async def test_nothing_leads_out(opened: Opened, source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (source / "up").symlink_to("../secret")
    (source / "absolute").symlink_to(tmp_path / "secret")
    entries = {"data": BindMount(source=source, read_only=False), "other": TmpfsMount(size=MIB)}
    async with opened(entries) as session:
        said = await output(
            session,
            "cat data/up data/absolute data/../../secret data/deep/../../secret; cd data/deep; cat "
            "../../secret; ln ../file ../../linked; cd ../..; ln data/file other/linked; mv data/deep .;"
            " umount data; mount --bind data other; chroot data /bin/true; ls",
        )
        assert "secret" not in said.replace("/secret", "").replace("'secret'", "")
        assert said.count("cat: ") == 5
        assert said.count("cross-device link") == 2
    # The control: outside, the same link leads there.
    assert (source / "up").read_text() == "secret"


@pytest.fixture
def powers(source: Path) -> Path:
    """A set-user-id program and a device node, which work outside: the control."""
    program, node = source / "id", source / "null"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    os.mknod(node, stat.S_IFCHR, os.makedev(1, 3))
    node.chmod(0o666)
    for above in source.parents:
        if above.is_relative_to("/tmp") and above != Path("/tmp"):
            above.chmod(above.stat().st_mode | 0o011)
    other = ["setpriv", "--reuid", "12345", "--clear-groups", "--inh-caps=-all"]
    told = subprocess.run([*other, program, "-u"], capture_output=True, text=True, check=True)
    assert told.stdout == "0\n"
    subprocess.run([*other, "sh", "-c", f": > {node}"], check=True)
    return source


@pytest.mark.root
async def test_powers_stay_outside(opened: Opened, powers: Path) -> None:
    for entry in (BindMount(source=powers), BindMount(source=powers, read_only=False)):
        async with opened({"data": entry}) as session:
            said = await output(session, "data/id -u; echo x > data/null")
            assert said.startswith("1000\n")
            assert "ermission denied" in said


HOST = """
import asyncio, sys
from sandyard import BindMount, Manifest, OverlayMount, TmpfsMount, UnixLocalSandboxClient

async def main():
    entries = {
        "bind": BindMount(source=sys.argv[1], read_only=False),
        "over": OverlayMount(source=sys.argv[1]),
        "memory": TmpfsMount(),
    }
    session = await UnixLocalSandboxClient().create(manifest=Manifest(entries=entries))
    async with session:
        await session.exec(f"cd bind; setsid sleep {sys.argv[2]} & cd ../over; sleep {sys.argv[2]} &")
        await session.mount("late", BindMount(source=sys.argv[1]))
        print(session.state.manifest.root, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def mounts_anywhere(place: Path) -> list[str]:
    """Processes that see something mounted in a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            if f" {place}/" in entry.read_text():
                found.append(entry.parent.name)
    return found


def holds_soon(condition: Callable[[], bool]) -> bool:
    """Whether something comes to hold within the time that the machine may take."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE_S:
            return False
        os.sched_yield()
    return True


def test_nothing_outlives_the_host(source: Path, tmp_path: Path) -> None:
    token = make_token()
    places = {"TMPDIR": tmp_path / "tmp", "XDG_STATE_HOME": tmp_path / "state"}
    for place in places.values():
        place.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOST, str(source), token],
        env=os.environ | {name: str(place) for name, place in places.items()},
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        try:
            assert host.stdout is not None
            root = Path(host.stdout.readline().strip())
            # Itself and two: a process has no command line for a moment while it executes another program.
            assert holds_soon(lambda: len(find_survivors(token)) >= 3)
            assert mounts_anywhere(root)
        finally:
            host.kill()
    assert holds_soon(lambda: find_survivors(token) == [])
    assert holds_soon(lambda: mounts_anywhere(root) == [])
    # What is left is what was there without mounts: empty directories, and the source as it was.
    assert sorted(os.listdir(root)) == ["bind", "late", "memory", "over"]
    assert [os.listdir(root / name) for name in os.listdir(root)] == [[]] * 4
    assert sorted(os.listdir(source)) == ["deep", "file"]


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """A workspace in which the host itself has mounted something."""
    work = tmp_path / "work"
    (work / "a/data").mkdir(parents=True)
    (work / "plain").write_text("p")
    subprocess.run(["mount", "-t", "tmpfs", "none", work / "a/data"], check=True)
    (work / "a/data/precious").write_text("keep")
    yield work
    subprocess.run(["umount", work / "a/data"], check=True)


@pytest.mark.root
async def test_mounts_of_the_host_stay(foreign: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(root=foreign))
    async with session:
        assert await output(session, "cat a/data/precious") == "keep"  # it is there to be lost
        found = [
            entry.path.removeprefix(f"{foreign}/")
            for entry in await session.ls(".", recursive=True)
        ]
        assert sorted(found) == ["a", "a/data", "plain"]
        assert await session.glob("**/precious") == []
        with await session.persist_workspace() as saved:
            while saved.read(MIB):
                pass
            assert saved.report is not None
            assert [(note.path, note.reason) for note in saved.report.skipped] == [
                ("a/data", "mount")
            ]
        for verb in (session.rm("a", recursive=True), session.rm("a/data", recursive=True)):
            with pytest.raises(SandboxError, match="mounted there"):
                await verb
        with pytest.raises(SandboxError, match="mounted"):
            await session.mount("a/data/deeper", TmpfsMount())
    await client.delete(session)
    assert (foreign / "a/data/precious").read_text() == "keep"


@pytest.mark.parametrize("kind", ["store", "archive"])
async def test_what_was_saved_is_out_of_reach(tmp_path: Path, kind: str) -> None:
    kept = tmp_path / "kept/here"
    kept.mkdir(parents=True)
    spec: StoreSnapshotSpec | LocalSnapshotSpec = StoreSnapshotSpec(directory=str(kept))
    if kind == "archive":
        spec = LocalSnapshotSpec(base_path=str(kept))
    client = UnixLocalSandboxClient()
    session = await client.create(snapshot=spec)
    try:
        async with session:
            for source in (kept, kept.parent):
                with pytest.raises(MountConfigError, match="snapshot") as refused:
                    await session.mount("data", BindMount(source=source, read_only=False))
                assert refused.value.context["reason"] == "own"
            for harmless in (BindMount(source=kept), OverlayMount(source=kept)):
                await session.mount("data", harmless)
                await session.unmount("data")
    finally:
        await client.delete(session)
