"""What commands plant in a directory hides nothing from a later overlay over it, in silence at least."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandyard import (
    Manifest,
    MountConfigError,
    Overlay,
    OverlayMount,
    SandboxError,
    UnixLocalSandboxClient,
    WorkspaceStartError,
)
from sandyard.workspace import overlay_marks
from sandyard.workspace.descent import Level, descend
from sandyard.workspace.ward import Ward

PLANT = """
import os
os.setxattr({path!r}, "user.overlay.whiteout", b"y")
"""


@pytest.fixture
def client() -> UnixLocalSandboxClient:
    return UnixLocalSandboxClient()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    (base / "deep/er").mkdir(parents=True)
    for name in ("marker", "deep/er/marker"):
        (base / name).write_text("")
    return base


async def plant(client: UnixLocalSandboxClient, base: Path, code: str) -> None:
    """Let a command of an earlier session do it, which may."""
    session = await client.create(manifest=Manifest(root=str(base)))
    async with session:
        result = await session.exec("python3", "-c", code, shell=False)
        if b"not supported" in result.stderr:
            pytest.skip("the file system has no attributes")
        assert result.ok(), result.stderr
    await client.delete(session)


@pytest.mark.parametrize("path", ["marker", "deep/er/marker"])
async def test_hidden_files_are_refused(
    client: UnixLocalSandboxClient, base: Path, path: str
) -> None:
    await plant(client, base, PLANT.format(path=path))
    session = await client.create(workspace=Overlay(base))
    with pytest.raises(WorkspaceStartError) as caught:
        await session.start()
    assert caught.value.context["reason"] == "hides_files"
    assert f"setfattr -x user.overlay.whiteout {base / path}" in str(caught.value)
    os.removexattr(base / path, "user.overlay.whiteout")
    async with session:
        shown = await session.exec(f"cat {path}")
        assert shown.ok(), shown.stderr
        assert (await session.diff()).entries == ()
    await client.delete(session)


async def test_overlay_mount_is_refused_too(client: UnixLocalSandboxClient, base: Path) -> None:
    await plant(client, base, PLANT.format(path="deep/er/marker"))
    session = await client.create()
    async with session:
        with pytest.raises(MountConfigError) as caught:
            await session.mount("shown", OverlayMount(source=str(base)))
        assert caught.value.context["reason"] == "hides_files"
        os.removexattr(base / "deep/er/marker", "user.overlay.whiteout")
        await session.mount("shown", OverlayMount(source=str(base)))
        assert (await session.exec("cat shown/deep/er/marker")).ok()
    await client.delete(session)


async def test_other_marks_change_nothing_unseen(
    client: UnixLocalSandboxClient, base: Path
) -> None:
    """A file that the kernel takes for a part of another one is refused, never shown as something else."""
    (base / "data").write_text("told\n")
    code = """
import os
os.setxattr("deep", "user.overlay.opaque", b"y")
os.setxattr("deep", "user.overlay.redirect", b"/elsewhere")
os.setxattr("deep/er", "user.overlay.origin", b"xx")
os.setxattr("data", "user.overlay.metacopy", b"")
os.setxattr("marker", "user.overlay.redirect", b"/data")
"""
    await plant(client, base, code)
    session = await client.create(workspace=Overlay(base))
    async with session:
        result = await session.exec("cat marker deep/er/marker && cat data")
        assert result.stdout == b""
        assert result.stderr.endswith(b"data: Operation not permitted\n")
        with pytest.raises(SandboxError, match=r"user\.overlay\.metacopy"):
            await session.read("data")
        assert (await session.diff()).entries == ()
    await client.delete(session)


async def test_looking_ends_with_who_asked(
    client: UnixLocalSandboxClient, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(top: int, ward: Ward) -> Iterator[Level]:
        while True:
            yield from descend(top, ward)

    monkeypatch.setattr(overlay_marks, "descend", endless)
    overlay, other = await client.create(workspace=Overlay(base)), await client.create()
    async with other:
        mount = other.mount("shown", OverlayMount(source=str(base)))
        for look in (overlay.start(), mount):
            task = asyncio.ensure_future(look)
            await asyncio.sleep(0.2)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        monkeypatch.undo()
        await other.mount("shown", OverlayMount(source=str(base)))
        async with overlay:
            assert (await overlay.exec("true")).ok()
    for session in (overlay, other):
        await client.delete(session)
