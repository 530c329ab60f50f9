"""Copies keep the holes of sparse files, whichever verb makes them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandyard import LocalDir, LocalFile, Manifest, UnixLocalSandboxClient
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.materialize import apply_manifest

HOLE = 8 << 20
"""Bytes, far more than the blocks of any file system."""

MOST_HELD = HOLE // 4


def make_sparse(path: Path) -> bytes:
    """A file with data at its beginning, amid a hole, and a hole at its end; what it reads as."""
    with open(path, "wb") as file:
        file.write(b"begin")
        file.seek(HOLE // 2)
        file.write(b"middle")
        file.truncate(HOLE)
    held = path.stat().st_blocks * 512
    if held > MOST_HELD:
        pytest.skip("this file system keeps no holes")
    return path.read_bytes()


def check(path: Path, content: bytes) -> None:
    assert path.read_bytes() == content
    assert path.stat().st_blocks * 512 <= MOST_HELD, path


async def test_verbs_keep_holes(tmp_path: Path) -> None:
    content = make_sparse(tmp_path / "sparse")
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            top = Path(session.state.manifest.root)
            await session.upload(tmp_path / "sparse", "up")
            await session.copy("up", "twin")
            await session.mkdir("tree")
            await session.copy("up", "tree/in")
            await session.copy("tree", "other", recursive=True)
            await session.download("twin", tmp_path / "down")
            await session.download("tree", tmp_path / "below")
            for path in (top / "up", top / "twin", top / "other/in"):
                check(path, content)
            check(tmp_path / "down", content)
            check(tmp_path / "below/in", content)
    finally:
        await client.delete(session)


@pytest.mark.parametrize("refusal", [None, errno.EXDEV, errno.EINVAL])
def test_manifests_keep_holes(
    root: WorkspaceRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(refusal, "not these two")

    if refusal is not None:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "tree").mkdir()
    content = make_sparse(tmp_path / "tree/sparse")
    manifest = Manifest(entries={"f": LocalFile(src="tree/sparse"), "t": LocalDir(src="tree")})
    apply_manifest(root, manifest, base_dir=str(tmp_path))
    check(Path(root.path, "f"), content)
    check(Path(root.path, "t/sparse"), content)
