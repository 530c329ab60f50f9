"""What lies on another machine is made a directory by a provider, for as long as it is shown."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from sandyard import MountConfigError, MountFailedError, RemoteMount
from tests.mounts.conftest import Opened, inner_mounts, output


class Shelf:
    """A provider that fetches into a directory of its own, and writes down what it is asked."""

    def __init__(self, place: Path, fails: str = "") -> None:
        self.place = place
        self.fails = fails
        self.log: list[str] = []

    def mounted(self, entry: RemoteMount) -> AbstractAsyncContextManager[Path]:
        return self._mounted(entry)

    def fetch(self) -> None:
        self.place.mkdir()
        (self.place / "remote").write_text("from afar")

    @asynccontextmanager
    async def _mounted(self, entry: RemoteMount) -> AsyncIterator[Path]:
        self.log.append(f"enter {entry.source} {entry.options}")
        if self.fails == "enter":
            raise OSError("no route")
        await asyncio.to_thread(self.fetch)
        try:
            yield self.place / "missing" if self.fails == "place" else self.place
        finally:
            self.log.append("leave")
            await asyncio.to_thread(shutil.rmtree, self.place)
            if self.fails == "leave":
                raise OSError("no way back")


async def test_provider_is_asked_and_left(opened: Opened, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    remote = RemoteMount(provider="shelf", source="s3://bucket/x", options={"region": "r"})
    async with opened({"data": remote}, providers={"shelf": shelf}) as session:
        assert shelf.log == ["enter s3://bucket/x {'region': 'r'}"]
        assert "Read-only" in await output(session, "cat data/remote; echo x > data/new")
        with pytest.raises(MountConfigError, match="known: shelf") as caught:
            await session.mount("other", RemoteMount(provider="other", source="x"))
        assert caught.value.context["reason"] == "no_provider"
        await session.unmount("data")
        assert shelf.log[1:] == ["leave"]
        assert not shelf.place.exists()
        await session.mount("again", remote)
        assert len(shelf.log) == 3
    assert shelf.log[3:] == ["leave"]


@pytest.mark.parametrize("fails", ["enter", "place"])
async def test_failing_provider_leaves_nothing(opened: Opened, tmp_path: Path, fails: str) -> None:
    shelf = Shelf(tmp_path / "shelf", fails)
    remote = RemoteMount(provider="shelf", source="x")
    async with opened(providers={"shelf": shelf}) as session:
        with pytest.raises(MountFailedError if fails == "enter" else MountConfigError):
            await session.mount("data", remote)
        assert await inner_mounts(session) == []
        assert session.mounts() == {}
        assert not shelf.place.exists()
        assert await output(session, "ls -A") == ""


async def test_failing_end_is_told(opened: Opened, tmp_path: Path) -> None:
    bad, good = Shelf(tmp_path / "bad", "leave"), Shelf(tmp_path / "good")
    providers = {"bad": bad, "good": good}
    entries = {name: RemoteMount(provider=name, source="x") for name in providers}
    with pytest.raises(MountFailedError, match="no way back") as caught:
        async with opened(entries, providers=providers) as session:
            await output(session, "cat bad/remote good/remote")
    assert caught.value.context["reason"] == "provider"
    assert bad.log[1:] == good.log[1:] == ["leave"]
    assert not await session.running()
    assert session.mounts() == {}
