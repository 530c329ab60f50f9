"""A save of a session on layers looks at what was touched, and saves what a walk over all of it would."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import (
    File,
    Layered,
    Manifest,
    Policy,
    Progress,
    Snapshot,
    SnapshotStore,
    StoreSnapshotSpec,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.archive.trees import Node
from sandyard.workspace.layered_saving import LayeredSaving
from sandyard.workspace.persist_frame import Listing
from sandyard.workspace.persist_tree import TreeSaving
from sandyard.workspace.stat_index import Known, StatIndex
from tests.layered.conftest import assert_nothing_left, said
from tests.layered.test_saved import saved_sample

CHANGES = (
    "true",
    "echo more > d/new; echo -n new >> large; chmod 600 d/tool",
    "rm -f 'read only'; rm -r shut; mkdir shut; echo x > shut/other",
    "rm -r d/empty; echo file > d/empty; mkdir d/more d/more/deep; mv d/more d/moved",
    "ln -s d link2; rm large; mkdir large; touch -d 2001-02-03 large; chmod 711 d",
    "setfattr -n user.some -v one d/moved; setfattr -n user.overlay.opaque -v y d/moved/deep; mkfifo d/fifo",
    "rm -r d; mkdir d; echo hidden > d/tool; mkdir .sandyard-0123456789abcdef.stage; rm sparse",
    "rm -r d; rm link2; ln d d2 2>/dev/null; rm -rf .sandyard*; mv large larger",
    "for i in $(seq 30); do mkdir m$i; echo $i > m$i/f; done; ln m1/f m2/g; ln m1/f a0",
    "rm -r m1?; rm a0; echo 2 > m2/f; find . -maxdepth 1 -name 'm2*' -exec chmod 700 {} +",
    "find . -mindepth 1 -delete",
)
"""Gone, hidden, copied up, renamed, of another kind, with other attributes, linked, and never saved."""


class Ways:
    """How workspaces were saved.

    Attributes:
        walked: how often by a walk over all.
        followed: how often by what was touched.
        looked: at how many things that happened.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.walked = self.followed = self.looked = 0
        walk, follow, look = TreeSaving.run, LayeredSaving.run, TreeSaving._looked_at  # noqa: SLF001

        def walking(saving: TreeSaving) -> Node:
            self.walked += not isinstance(saving, LayeredSaving)
            return walk(saving)

        def following(saving: LayeredSaving) -> Node:
            node = follow(saving)
            self.followed += 1
            return node

        def looking(
            saving: TreeSaving, opened: int, path: tuple[bytes, ...], names: list[bytes]
        ) -> Listing:
            self.looked += len(names)
            return look(saving, opened, path, names)

        monkeypatch.setattr(TreeSaving, "run", walking)
        monkeypatch.setattr(LayeredSaving, "run", following)
        monkeypatch.setattr(TreeSaving, "_looked_at", looking)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


@pytest.fixture
async def session(
    client: UnixLocalSandboxClient, tmp_path: Path
) -> AsyncIterator[UnixLocalSandboxSession]:
    """A session upon the layer of a snapshot with something of everything."""
    snapshot = await saved_sample(client, tmp_path / "own")
    session = await client.fork(snapshot, workspace=Layered())
    yield session
    await client.delete(session)
    assert_nothing_left(saved=1)


async def walked(session: UnixLocalSandboxSession, history: str) -> Snapshot:
    """The session, saved by a walk over all of it that knows nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_layered_place", lambda: None)
        return await session.save_snapshot(history=history)


def told(snapshot: Snapshot) -> dict[str, object]:
    """What a snapshot says of its files."""
    names = ("tree", "files", "directories", "symlinks", "hard_links", "size")
    notes = ("skipped", "changed", "dropped", "unlisted")
    return {name: getattr(snapshot, name) for name in (*names, *notes)}


async def assert_saved(session: UnixLocalSandboxSession, number: int) -> None:
    """A save says what two others say: one that walks over all, and one that knows the base alone."""
    ours = await session.save_snapshot(label="kept")  # with a label each is one
    base = await session.save_snapshot(history=f"base{number}", label="kept")
    whole = await walked(session, f"walked{number}")
    assert told(ours) == told(whole), number
    assert told(base) == told(whole), number


async def test_save_is_exact(session: UnixLocalSandboxSession, ways: Ways) -> None:
    async with session:
        for number, command in enumerate(CHANGES):
            await said(session, command)
            await assert_saved(session, number)
        assert ways.followed >= len(CHANGES)
    assert (await SnapshotStore().verify()).ok


async def test_save_is_exact_after_freezing(
    client: UnixLocalSandboxClient, session: UnixLocalSandboxSession, ways: Ways
) -> None:
    """Of a fork, whose parent's changes are a layer above the snapshot's, and of what was frozen."""
    async with session:
        await said(session, f"{CHANGES[2]}; {CHANGES[3]}; {CHANGES[5]}")
        await session.save_snapshot()
        fork = await client.fork(session)
    frozen = await client.fork(session.state)
    again = await client.resume(session.state)
    for number, each in enumerate((fork, frozen, again)):
        async with each:
            for change, command in enumerate(
                ("true", "rm -r shut d/moved; mkdir d/moved", CHANGES[6])
            ):
                await said(each, command)
                await assert_saved(each, number * 10 + change)
        await client.delete(each)
    assert ways.followed >= 6


async def test_sessions_share_a_history(
    client: UnixLocalSandboxClient, session: UnixLocalSandboxSession
) -> None:
    """What one has changed is not taken for what lies beneath the other, though the layers are the same."""
    other = await client.fork(base_of(session), workspace=Layered())
    async with session, other:
        await said(session, "echo mine > d/mine; rm -r shut")
        await session.save_snapshot(history="both")
        await said(other, "echo other > other")
        ours = await other.save_snapshot(history="both", label="kept")
        assert told(ours) == told(await walked(other, "walked"))
    await client.delete(other)


def base_of(session: UnixLocalSandboxSession) -> str:
    """The snapshot that a session was made from."""
    assert session.forked is not None
    return session.forked.source


async def test_save_costs_what_was_touched(client: UnixLocalSandboxClient, ways: Ways) -> None:
    base = await client.create()
    async with base:
        await said(
            base,
            "for i in $(seq 40); do mkdir -p a/d$i; touch a/d$i/f$(seq -s ' a/d'$i/f 50); done",
        )
        snapshot = await base.save_snapshot()
    assert snapshot.files >= 2_000
    await client.delete(base)
    session = await client.fork(snapshot, workspace=Layered())
    async with session:
        for number in range(3):
            await said(session, f"for i in 3 7 20; do echo {number} > a/d$i/f1; done; rm -r a/d9")
            ways.looked = ways.walked = 0
            saved = await session.save_snapshot()
            assert ways.walked == 0
            assert ways.looked <= 10
            assert saved.files == snapshot.files - 50
    await client.delete(session)
    assert_nothing_left(saved=1)


@pytest.mark.parametrize("torn", [False, True])
async def test_what_was_made_and_removed(
    client: UnixLocalSandboxClient, ways: Ways, monkeypatch: pytest.MonkeyPatch, *, torn: bool
) -> None:
    """What lay above all layers and is gone leaves no mark there: it is not told of any more.

    Args:
        torn: whether what the last save noted of directories can't be read.
    """
    base = await client.create()
    async with base:
        await said(
            base, "mkdir -p a/b c; touch a/1 a/b/2 c/3 4; for i in $(seq 50); do echo > a/f$i; done"
        )
        snapshot = await base.save_snapshot()
    await client.delete(base)
    listed: list[tuple[bytes, ...]] = []
    real = TreeSaving._names_in  # noqa: SLF001

    def listing(saving: TreeSaving, opened: int, path: tuple[bytes, ...]) -> list[bytes]:
        listed.append(path)
        return real(saving, opened, path)

    session = await client.fork(snapshot, workspace=Layered())
    async with session:
        await said(
            session, "echo new > a/new; mkdir -p a/b/deep/er; echo > a/b/deep/er/new; echo > c/3"
        )
        await session.save_snapshot()
        for number, command in enumerate(
            (
                "rm a/new; echo more > a/more",
                "mv a/b/deep/er a/b/er; rm -r a/b/deep; rm a/1",
                "rm -r a/b/er a/more; touch a/f7",
                "rm -r a/b; mkdir a/b; touch a/b/2; rm c/3; mv 4 c/3",
            )
        ):
            await said(session, command)
            with monkeypatch.context() as patch:
                if torn:
                    patch.setattr(StatIndex, "_known", unreadable)
                patch.setattr(TreeSaving, "_names_in", listing)
                ours = await session.save_snapshot(label="kept")
            assert ((b"a",) in listed) == torn, number
            listed.clear()
            assert told(ours) == told(await walked(session, f"walked{number}"))
        assert ways.followed >= 5
    await client.delete(session)
    assert_nothing_left(saved=1)


def unreadable(index: StatIndex, path: bytes, place: int, key: int) -> Known | None:
    """Know of no directory, but of how the layers lay."""
    return REAL_KNOWN(index, path, place, key) if path.startswith(b"\0") else None


REAL_KNOWN = StatIndex._known  # noqa: SLF001


async def test_what_is_left_out_is_looked_at(
    client: UnixLocalSandboxClient, tmp_path: Path, ways: Ways
) -> None:
    """What is never saved by its path, also if it lies beneath and was saved before."""
    snapshot = await saved_sample(client, tmp_path / "own")
    entries = {"d/secret": File(content=b"key", ephemeral=True)}
    session = await client.fork(
        snapshot, workspace=Layered(), manifest=Manifest(entries=entries), keep_path=False
    )
    async with session:
        await assert_saved(session, 0)
        session.register_persist_workspace_skip_path("shut")
        await assert_saved(session, 1)
        assert ("shut", "excluded") in (await session.save_snapshot()).skipped
        assert ways.followed >= 4
    await client.delete(session)


async def test_what_cannot_be_followed_is_walked(
    client: UnixLocalSandboxClient, tmp_path: Path, ways: Ways
) -> None:
    """What the policy denies, and a file of which a further name stays when its first one is gone."""
    snapshot = await saved_sample(client, tmp_path / "own")
    for number, policy in enumerate((Policy(), Policy(deny=("/workspace/d",)))):
        session = await client.fork(snapshot, workspace=Layered(), policy=policy, keep_path=False)
        async with session:
            await said(session, "echo x > new" if number else "rm d/tool")
            await assert_saved(session, number)
            assert ways.followed == 0
        await client.delete(session)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10))
async def test_random_changes_are_saved(
    client: UnixLocalSandboxClient, tmp_path: Path, seed: int
) -> None:
    """Anything happens to anything; saved again and again, and frozen between."""
    snapshot = await saved_sample(client, tmp_path / "own")
    session = await client.fork(snapshot, workspace=Layered())
    dice = random.Random(seed)  # noqa: S311  # which change comes is no secret
    names = [
        f"{a}/{b}" if b else a for a in ("d", "shut", "x", "y") for b in ("", "e", "f", "tool")
    ]
    forms = (
        "rm -rf {0}",
        "mkdir -p {0}",
        "echo {2} > {0}",
        "mv -T {0} {1}",
        "cp -a {0} {1}",
        "ln -f {0} {1}",
        "ln -sfn {1} {0}",
        "chmod {2} {0}",
        "setfattr -n user.k -v {2} {0}",
        "touch -d @{2} {0}",
    )
    for number in range(40):
        if number % 10 == 9:
            await session.aclose()
            fork = await client.fork(session.state)
            await client.delete(fork)
            session = await client.resume(session.state)
        if number % 10 in {0, 9}:
            await session.start()
        for _ in range(5):
            one, two = dice.sample(names, 2)
            command = dice.choice(forms).format(one, two, dice.choice((700, 750, 755)))
            await said(session, command)
        await assert_saved(session, number)
    await client.delete(session)
    assert_nothing_left(saved=1)


async def test_saves_on_layers_tell_how_far_they_are(tmp_path: Path) -> None:
    client, heard = UnixLocalSandboxClient(), list[Progress]()
    spec = StoreSnapshotSpec(directory=str(tmp_path / "store"))
    session = await client.create(workspace=Layered(), snapshot=spec)
    async with session:
        await session.exec("for i in $(seq 300); do echo $i > f$i; done; mkdir d; ln -s f1 d/link")
        for change, files in (
            ("true", 301),
            ("for i in $(seq 40); do echo more > d/g$i; done", 341),
            ("rm f1 d/g1; echo other > f2", 339),
            ("true", 339),
        ):
            await session.exec(change)
            heard.clear()
            await session.stop(progress=heard.append)
            assert session.checkpoint is not None
            report = session.checkpoint.report
            assert heard[-1] == Progress("", files, report.size, 0, 0)
            assert report.files + report.symlinks == files
            assert [each.files for each in heard] == sorted(each.files for each in heard)
    await client.delete(session)
