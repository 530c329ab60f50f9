"""The store, from outside: what is saved comes back, once on the disk, and only while it is wanted."""

from __future__ import annotations

import io
import os
import tarfile
from typing import Any, cast

import pytest

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    SnapshotDamagedError,
    SnapshotNotRestorableError,
    SnapshotPersistError,
    SnapshotRestoreError,
)
from sandyard.finishing import in_thread
from sandyard.snapshot.store import SnapshotStore
from tests.snapshot.trees import archive_of, exported, facts_of, files_of, rewrite

FILES = {"a.txt": b"alpha", "deep/er/b.bin": os.urandom(700_000), "zero": b"", "copy": b"alpha"}


def packs_of(store: SnapshotStore) -> dict[str, bytes]:
    """The packs of a store, by path."""
    return {path: raw for path, raw in files_of(store).items() if path.endswith(".pack")}


class Odd:
    """A stream whose ``read`` gives anything, or raises it."""

    def __init__(self, given: object) -> None:
        self._given = given

    def read(self, size: int) -> object:
        del size
        if isinstance(self._given, Exception):
            raise self._given
        return self._given


async def _nothing() -> None:
    """Is never awaited."""


async def test_odd_sources_are_told(store: SnapshotStore) -> None:
    await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    closed = io.BytesIO()
    closed.close()
    for source in (None, b"bytes", object(), Odd("text"), Odd(None), Odd(_nothing())):
        with pytest.raises(ArgumentTypeError, match="binary stream") as wrong:
            await store.add_tar("one", source)  # type: ignore[arg-type]
        assert wrong.value.context["argument"] == "source"
    for unreadable in (closed, Odd(BrokenPipeError("gone")), Odd(io.UnsupportedOperation("read"))):
        with pytest.raises(SnapshotPersistError, match="could not be read") as caught:
            await store.add_tar("one", unreadable)  # type: ignore[arg-type]
        assert caught.value.context["reason"] == "source_unreadable"
    assert len(await store.list("one")) == 1
    assert (await store.verify()).ok


async def test_saved_is_restored(store: SnapshotStore) -> None:
    archive = archive_of(FILES)
    saved = await store.add_tar("one", io.BytesIO(archive), label="first", tags=["x"])
    assert (saved.files, saved.directories, saved.size) == (4, 1, 700_010)
    back = facts_of(await exported(store, saved.id))
    assert {name.rstrip(b"/"): each for name, each in facts_of(archive).items()}.items() <= {
        name.rstrip(b"/"): each for name, each in back.items()
    }.items()
    assert await store.list() == (saved,)
    assert await store.get(saved.id[:6]) == saved
    health = await store.verify()
    assert (health.ok, health.snapshots) == (True, 1)
    assert os.stat(store.directory).st_mode & 0o777 == 0o700


async def test_same_content_once(store: SnapshotStore) -> None:
    first = await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    size = sum(map(len, packs_of(store).values()))
    again = await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    assert again == first
    other = await store.add_tar("two", io.BytesIO(archive_of(FILES | {"new": b"new"})))
    assert other.id != first.id
    grown = sum(map(len, packs_of(store).values())) - size
    assert grown < 2_000
    assert size < 710_000


async def test_links_lead_from_first(store: SnapshotStore) -> None:
    """In a walk the file comes before its links, whatever order the archive had."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("z/file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("a/link")
        link.type, link.linkname = tarfile.LNKTYPE, "z/file"
        tar.addfile(link)
        symlink = tarfile.TarInfo("s")
        symlink.type, symlink.linkname = tarfile.SYMTYPE, "/nowhere"
        tar.addfile(symlink)
    saved = await store.add_tar("one", io.BytesIO(buffer.getvalue()))
    back = facts_of(await exported(store, saved.id))
    assert [str(back[name][0]) for name in (b"./a/link", b"./z/file", b"./s")] == [
        "Kind.FILE",
        "Kind.HARD_LINK",
        "Kind.SYMLINK",
    ]
    assert back[b"./z/file"][4] == b"a/link"


async def test_history_and_retention(store: SnapshotStore) -> None:
    ids = []
    for number in range(6):
        data = {"n": b"%d" % number, "big": os.urandom(50_000)}
        label = "keep" if number == 1 else ""
        saved = await store.add_tar("one", io.BytesIO(archive_of(data)), label=label)
        ids.append(saved.id)
    assert [each.number for each in await store.list("one")] == [1, 2, 3, 4, 5, 6]
    before = sum(map(len, packs_of(store).values()))
    packs = packs_of(store)
    would = await store.prune(max_count=2, dry_run=True)
    assert (set(would.removed), would.packs, would.size) == ({ids[0], ids[2], ids[3]}, 0, 0)
    assert (await store.prune(history="none", max_count=0, dry_run=True)).removed == ()
    assert [each.id for each in await store.list()] == ids
    assert packs_of(store) == packs
    done = await store.prune(max_count=2)
    assert (set(done.removed), done.packs) == ({ids[0], ids[2], ids[3]}, 3)
    assert done.size > 150_000
    assert before - sum(map(len, packs_of(store).values())) == done.size
    assert [each.id for each in await store.list()] == [ids[1], ids[4], ids[5]]
    assert (await store.prune(max_age=0, max_bytes=0)).removed == (ids[4],)
    await store.label(ids[1], label="")
    done = await store.remove(ids[1])
    assert [each.id for each in await store.list()] == [ids[5]]
    assert (await store.verify()).ok
    with pytest.raises(SnapshotNotRestorableError):
        await store.get(ids[1])
    saved = await store.add_tar("one", io.BytesIO(archive_of({"n": b"last"})))
    assert (saved.number, saved.parent) == (7, ids[5])


async def test_compacting_changes_nothing(store: SnapshotStore) -> None:
    saved = []
    for number in range(3):
        data = {"text": b"so it is %d\n" % number * 100_000, "noise": os.urandom(80_000)}
        saved.append(await store.add_tar("one", io.BytesIO(archive_of(data))))
    before = [await exported(store, each.id) for each in saved]
    done = await store.compact()
    assert (done.packs, done.size > 3_000_000) == (3, True)
    assert len(packs_of(store)) == 1
    assert [await exported(store, each.id) for each in saved] == before
    assert (await store.compact()).packs == 0
    assert (await store.verify()).ok
    again = await store.add_tar("two", io.BytesIO(before[0]))
    assert again.tree == saved[0].tree


async def test_diff_tells_all(store: SnapshotStore) -> None:
    old = {"same": b"1", "gone/x": b"1", "other": b"1", "d/y": b"2"}
    new = {"same": b"1", "come/z": b"1", "other": b"2", "d": b"2"}
    first = await store.add_tar("one", io.BytesIO(archive_of(old)))
    second = await store.add_tar("one", io.BytesIO(archive_of(new)))
    diff = await store.diff(first.id, second.id)
    assert diff.removed == ("d/y", "gone", "gone/x")
    assert diff.added == ("come", "come/z")
    assert diff.changed == ("d", "other")
    assert (await store.diff(first.id, first.id)).same


async def test_wrong_bytes_never_leave(store: SnapshotStore) -> None:
    """Whichever byte of a store is flipped: what comes out is right, or nothing does."""
    archive = archive_of({"a": b"alpha" * 3, "dir/b": b"beta"})
    saved = await store.add_tar("one", io.BytesIO(archive))
    want = await exported(store, saved.id)
    outcomes = set()
    for path, raw in files_of(store).items():
        for at in range(0, len(raw), 7):
            torn = raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]
            rewrite(path, torn)
            fresh = SnapshotStore(store.directory)
            try:
                assert await exported(fresh, saved.id) == want
                outcomes.add("whole")
            except (SnapshotDamagedError, SnapshotNotRestorableError, SnapshotPersistError):
                outcomes.add("refused")
                if not path.endswith("format"):
                    assert not (await fresh.verify()).ok
        rewrite(path, raw)
    assert outcomes == {"whole", "refused"}
    assert await exported(SnapshotStore(store.directory), saved.id) == want


async def test_torn_pack_is_salvaged(store: SnapshotStore) -> None:
    saved = await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    want = await exported(store, saved.id)
    ((path, raw),) = packs_of(store).items()
    rewrite(path, raw[:-10])
    fresh = SnapshotStore(store.directory)
    assert await exported(fresh, saved.id) == want
    health = await fresh.verify()
    assert (health.snapshots, health.ok) == (1, False)
    await fresh.prune()  # which writes anew what it held
    assert (await fresh.verify()).ok
    assert await exported(fresh, saved.id) == want


async def test_saving_again_heals(store: SnapshotStore) -> None:
    """What was lost or torn is not taken for kept when the same is saved once more."""
    archive = archive_of(FILES)
    saved = await store.add_tar("one", io.BytesIO(archive))
    want = await exported(store, saved.id)
    ((path, raw),) = packs_of(store).items()
    for damage in (raw.replace(b"alpha", b"omega")[:-10], None):
        for each in packs_of(store):
            os.unlink(each)
        if damage is not None:
            rewrite(path, damage)
        fresh = SnapshotStore(store.directory)
        assert await fresh.add_tar("one", io.BytesIO(archive)) == saved
        fresh = SnapshotStore(store.directory)
        assert await exported(fresh, saved.id) == want
        assert (await fresh.verify()).ok


async def test_last_saved_is_newest(store: SnapshotStore) -> None:
    """Of two that save into one history at once, the one that is told last is the newest."""
    archive = archive_of(FILES)
    await store.add_tar("one", io.BytesIO(archive))
    source, others = io.BytesIO(archive), [archive_of({"other": b"1"})]

    def read(size: int) -> bytes:
        if others:
            store.take_tar("one", io.BytesIO(others.pop()).read)
        return source.read(size)

    made = await in_thread(store.take_tar, "one", read)
    assert await in_thread(store.last_of, "one") == made
    assert [each.number for each in await store.list("one")] == [1, 2, 3]


async def test_what_two_saved_goes_once(store: SnapshotStore) -> None:
    """What two saves at once have both kept is kept once after a prune."""
    source, others = io.BytesIO(archive_of(FILES)), [archive_of(FILES | {"other": b"1"})]
    another = SnapshotStore(store.directory)

    def read(size: int) -> bytes:
        if others:
            another.take_tar("two", io.BytesIO(others.pop()).read)
        return source.read(size)

    saved = await in_thread(store.take_tar, "one", read)
    want = await exported(store, saved.id)
    assert sum(map(len, packs_of(store).values())) > 1_400_000
    assert (await store.prune()).size > 600_000
    assert sum(map(len, packs_of(store).values())) < 800_000
    assert (await store.verify()).ok
    assert await exported(store, saved.id) == want


async def test_no_older_one_instead(store: SnapshotStore) -> None:
    """A newest snapshot whose record is damaged is told, and not passed over."""
    first = await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    second = await store.add_tar("one", io.BytesIO(archive_of({"new": b"1"})))
    (path,) = (each for each in files_of(store) if second.id in each)
    os.truncate(path, 9)
    with pytest.raises(SnapshotRestoreError, match="the one before"):
        await in_thread(store.last_of, "one")
    third = await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    assert (third.number, third.tree) == (3, first.tree)
    assert await in_thread(store.last_of, "one") == third


async def test_nothing_is_removed_blindly(store: SnapshotStore) -> None:
    """While it can't be told what a snapshot needs, its bytes stay."""
    saved = await store.add_tar("one", io.BytesIO(archive_of(FILES)))
    ((path, raw),) = (each for each in files_of(store).items() if each[0].endswith(".json"))
    rewrite(path, raw[:-9])
    with pytest.raises(SnapshotPersistError, match="damaged"):
        await store.prune()
    rewrite(path, raw)
    assert (await store.get(saved.id)) == saved
    assert (await store.verify()).ok


async def test_arguments_are_checked(store: SnapshotStore) -> None:
    archive = archive_of({})
    saved = await store.add_tar("gone", io.BytesIO(archive))
    for name in ("", "..", "a/b", ".hidden", "x" * 129, "nul\0"):
        with pytest.raises(ArgumentError):
            await store.add_tar(name, io.BytesIO(archive))
        with pytest.raises(ArgumentError):
            await store.list(name)
        with pytest.raises(ArgumentError):
            await store.prune(history=name)
    odd: Any = 5
    for tags in ("good", odd, [odd], {odd, "x"}):
        with pytest.raises(ArgumentError):
            await store.label(saved.id, tags=tags)
        with pytest.raises(ArgumentError):
            await store.add_tar("one", io.BytesIO(archive), tags=tags)
    for call in (store.get(odd), store.prune(max_age=cast("float", "1"))):
        with pytest.raises((ArgumentError, ArgumentTypeError)):
            await call
    assert (await store.label(saved.id, tags=(each for each in ("y", "x")))).tags == ("y", "x")
    await store.remove(saved.id)
    with pytest.raises(ArgumentError):
        await store.add_tar("one", io.BytesIO(archive), label="two\nlines")
    with pytest.raises(ArgumentError):
        SnapshotStore("relative")
    with pytest.raises(ArgumentError):
        await store.prune(max_count=-1)
    with pytest.raises(SnapshotPersistError):
        await store.add_tar("one", io.BytesIO(b"no archive at all"))
    with pytest.raises(SnapshotNotRestorableError):
        await store.get("feed")
    assert await store.list() == ()
    os.chmod(store.directory, 0o777)
    with pytest.raises(SnapshotPersistError, match="alone"):
        await store.add_tar("one", io.BytesIO(archive))
    assert not packs_of(store)
