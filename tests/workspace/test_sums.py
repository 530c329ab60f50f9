"""What applying a manifest tells of copied files, and how many entries are made at once."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    Dir,
    File,
    LocalDir,
    LocalFile,
    Manifest,
    MaterializationResult,
    Materialized,
    SandboxConcurrencyLimits,
    UnixLocalSandboxClient,
)
from sandyard.limits import COPY_CHUNK_BYTES
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.materialize import Attempt, apply_manifest
from sandyard.workspace.progress import Progress, Tracker

LARGE = 3 * COPY_CHUNK_BYTES + 5


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Sources: small, empty, large with a hole, and one with two names."""
    top = tmp_path / "base"
    (top / "tree/deep").mkdir(parents=True)
    (top / "small").write_bytes(b"small")
    (top / "tree/empty").touch()
    (top / "tree/deep/one").write_bytes(b"twice")
    os.link(top / "tree/deep/one", top / "tree/two")
    (top / "tree/link").symlink_to("empty")
    with open(top / "tree/large", "wb") as file:
        file.write(b"begin")
        file.seek(LARGE - 3)
        file.write(b"end")
    return top


@pytest.mark.parametrize("direct", [False, True])
def test_copied_files_have_checksums(root: WorkspaceRoot, base: Path, direct: bool) -> None:
    manifest = Manifest(
        entries={
            "f": LocalFile(src="small"),
            "t": LocalDir(src="tree"),
            "own": File(content="of no file of the host's"),
            "d": Dir(),
        }
    )
    done = apply_manifest(root, manifest, base_dir=str(base), attempt=Attempt(direct=direct))
    top = Path(root.path)
    assert {file.path for file in done.files} == {
        "f", "t/deep/one", "t/empty", "t/large", "t/two",
    }  # fmt: skip
    for path, told in done.files:
        assert told == sha256((top / path).read_bytes()).hexdigest(), path
    assert dict(done.files)["f"] == sha256(b"small").hexdigest()
    assert "t/link" in done.written
    assert MaterializationResult is Materialized


class Meeting(Tracker):
    """Lets threads go on when as many as may work at once have each finished an entry."""

    def __init__(self, count: int) -> None:
        super().__init__(lambda _: None)
        self.threads: set[int] = set()
        self.gate = threading.Barrier(count)

    def finished(self, path: str) -> None:
        super().finished(path)
        self.threads.add(threading.get_ident())
        self.gate.wait(30)


@pytest.mark.parametrize("workers", [1, 3, 9])
def test_so_many_entries_at_once(root: WorkspaceRoot, workers: int) -> None:
    meeting = Meeting(workers)
    entries = {f"f{number}": File(content="x") for number in range(workers * 18)}
    attempt = Attempt(workers=workers, tracker=meeting)
    done = apply_manifest(root, Manifest(entries=entries), attempt=attempt)
    assert len(done.written) == len(entries)
    assert len(meeting.threads) == workers


class Counting(ThreadPoolExecutor):
    """Python's own, which notes how many threads were asked for."""

    asked: ClassVar[list[int | None]] = []

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        self.asked.append(max_workers)
        super().__init__(max_workers, thread_name_prefix)


@pytest.mark.parametrize(
    ("limits", "threads"),
    [
        (None, [3]),
        (SandboxConcurrencyLimits(), [3]),
        (SandboxConcurrencyLimits(manifest_entries=1), []),
        (SandboxConcurrencyLimits(manifest_entries=7, local_dir_files=None), [6]),
        (SandboxConcurrencyLimits(manifest_entries=None), [63]),
    ],
)
async def test_sessions_keep_to_the_limits(
    monkeypatch: pytest.MonkeyPatch, limits: SandboxConcurrencyLimits | None, threads: list[int]
) -> None:
    monkeypatch.setattr("sandyard.workspace.materialize.ThreadPoolExecutor", Counting)
    monkeypatch.setattr(Counting, "asked", [])
    entries = {f"f{number}": File(content="x") for number in range(40)}
    client = UnixLocalSandboxClient(concurrency_limits=limits)
    session = await client.create(manifest=Manifest(entries=entries))
    told: list[Progress] = []
    try:
        await session.start(progress=told.append)
    finally:
        await client.delete(session)
    assert Counting.asked == threads
    assert told[-1].files == len(entries)


def test_limits_that_are_none() -> None:
    for wrong in (0, -1):
        with pytest.raises(ArgumentError, match="at least 1") as caught:
            SandboxConcurrencyLimits(manifest_entries=wrong)
        assert isinstance(caught.value, ValueError)
        with pytest.raises(ValueError, match="local_dir_files must be at least 1"):
            SandboxConcurrencyLimits(local_dir_files=wrong)
    for odd in (True, 1.5, "4"):
        with pytest.raises(ArgumentTypeError):
            SandboxConcurrencyLimits(manifest_entries=odd)  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError):
        UnixLocalSandboxClient(concurrency_limits={"manifest_entries": 1})  # type: ignore[arg-type]
