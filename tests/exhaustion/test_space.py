"""No space and no files left, in the private directories and in the workspace: ENOSPC, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandyard import UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.exhaustion.programs import run_program
from tests.exhaustion.small_scratch import SCRATCH_BYTES, SCRATCH_FILES, small_sandbox


async def test_full_private_directories(tmp_path: Path) -> None:
    async with small_sandbox(tmp_path) as sandbox:
        filled = await sandbox.run(
            "head -c 200000000 /dev/zero > /tmp/filler; stat -c %s /tmp/filler"
        )
        assert b"No space left" in filled.stderr
        assert SCRATCH_BYTES // 2 < int(filled.stdout) <= SCRATCH_BYTES
        for place in ("/tmp", "/var/tmp", "$HOME", "/dev/shm"):
            refused = await sandbox.run(f"head -c 5 /dev/zero > {place}/file")
            assert b"No space left" in refused.stderr, place
        # What needs none of it goes on, and the workspace is another file system.
        going = await sandbox.run("head -c 1000000 /dev/zero > file; stat -c %s file")
        assert going.stdout == b"1000000\n"
        freed = await sandbox.run("rm /tmp/filler; echo text > /tmp/file; cat /tmp/file")
        assert (freed.stdout, freed.stderr) == (b"text\n", b"")


async def test_private_files_run_out(tmp_path: Path) -> None:
    async with small_sandbox(tmp_path) as sandbox:
        filled = await sandbox.run(
            "i=0; while : > /tmp/filler-$i; do i=$((i+1)); done; echo $i >&2; exit 3"
        )
        assert b"No space left" in filled.stderr
        assert len(filled.stderr.splitlines()) <= 2
        counted = int((await sandbox.run("ls /tmp | wc -l")).stdout)
        assert SCRATCH_FILES // 2 < counted <= SCRATCH_FILES
        freed = await sandbox.run("find /tmp -name 'filler-*' -delete; : > /tmp/file && echo on")
        assert freed.stdout == b"on\n"


async def test_private_space_is_given_back(
    client: UnixLocalSandboxClient, session: UnixLocalSandboxSession
) -> None:
    # What a sandbox held in its private directories is memory, which ends with it.
    assert (await session.exec("head -c 50000000 /dev/zero > /tmp/filler")).ok()
    await session.shutdown()
    await session.start()
    assert (await session.exec("ls /tmp/filler")).exit_code != 0


@pytest.mark.root
@pytest.mark.parametrize("kind", ["bytes", "files"])
def test_full_workspace(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "mount"
    place.mkdir()
    before = ("unshare", "--mount", "--propagation", "private")
    lines = run_program("full_workspace", str(place), kind, temporary=place, before=before)
    full, written, kept, left, inside, freed, *others = lines
    assert (full, freed) == ("full", "freed")
    refused = "WorkspaceArchiveWriteError no_space"
    assert written.split("|")[:3] == [refused] * 3
    assert kept == "old"  # whole, or not at all
    assert set(left.split()) <= {"made", "directory"}
    assert inside == "on\nold"
    assert others in ([], ["WorkspaceArchiveWriteError no_space", "clean"])


@pytest.mark.root
def test_full_store(tmp_path: Path) -> None:
    """Saves, forks, compacting and restores, each with more and more room until it has enough."""
    before = ("unshare", "--mount", "--propagation", "private")
    lines = run_program("full_store", str(tmp_path), temporary=tmp_path, before=before)
    found: dict[str, set[str]] = {}
    for line in lines:
        verb, _, said = line.partition(": ")
        found.setdefault(verb, set()).add(said)
    assert found == {
        "save": {"WorkspaceStopError not_saved < SnapshotPersistError"},
        "fork": {"WorkspaceArchiveWriteError no_space < OSError"},
        "compact": {"SnapshotPersistError < OSError"},
        "restore": {"WorkspaceStartError not_restored < WorkspaceArchiveWriteError no_space"},
    }
