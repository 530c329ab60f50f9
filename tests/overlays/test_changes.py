"""What was changed in an overlay: told, put beneath as a whole or not at all, thrown away."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from sandyard import (
    ApplyRefusedError,
    ArgumentError,
    ArgumentTypeError,
    UnixLocalSandboxClient,
    WorkspaceArchiveWriteError,
    WorkspaceStartError,
)
from sandyard.changes import Change, Changes
from sandyard.workspace import overlay_apply
from sandyard.workspace.clocks import Moment
from sandyard.workspace.copying import Abandoned, fill_file
from tests.overlays.conftest import Opened, contents, output

WORK = """
rm tool
rm -r src/deep
echo four >> notes
echo 'print(1)' > src/main.py
chmod 755 src/main.py
chmod 700 src
mkdir -p new/inner
echo x > new/inner/file
ln -s inner/file new/link
printf '\\0\\1' > binary
rm link; mkdir link; echo in > link/file
"""

DONE = [
    "D src/deep/ (1 entries)",
    "D tool",
    "A binary",
    "T link/",
    "A link/file",
    "A new/",
    "A new/inner/",
    "A new/inner/file",
    "A new/link",
    "M notes",
    "P src/ (mode 0700)",
    "M src/main.py",
]


def found(changes: Changes, path: str) -> Change:
    return next(change for change in changes.entries if change.path == path)


def owners(top: Path) -> set[int]:
    return {path.lstat().st_uid for path in top.rglob("*")}


def write(path: Path, text: str) -> None:
    path.write_text(text)


def set_back(noted: Path) -> None:
    """Let what was noted of an overlay look as if the clock had been an hour later when it began."""
    said = json.loads(noted.read_text())
    write(noted, json.dumps(said | {"began": said["began"] + 3600 * 10**9}))


async def test_everything_is_told_then_applied(base: Path, opened: Opened) -> None:
    async with opened() as session:
        assert (await session.diff()).entries == ()
        await output(session, WORK)
        changes = await session.diff()
        assert str(changes).splitlines() == DONE
        assert found(changes, "notes").text == (
            "--- a/notes\n+++ b/notes\n@@ -1,3 +1,4 @@\n one\n two\n three\n+four\n"
        )
        assert found(changes, "tool").text == (
            "--- a/tool\n+++ /dev/null\n@@ -1 +0,0 @@\n-#!/bin/sh\n"
        )
        assert found(changes, "binary").text is None
        assert found(changes, "new/link").target == "inner/file"
        assert all(change.text is None for change in (await session.diff(text=False)).entries)
        applied = await session.apply()
        assert sorted(applied.applied) == sorted(change.path for change in changes.entries)
        assert (await session.diff()).entries == ()
        seen = await output(session, "find . -printf '%y%m %s %p %l\\n' | sort")
    assert not any(name.startswith(".sandyard") for name in os.listdir(base))
    assert (base / "notes").read_text() == "one\ntwo\nthree\nfour\n"
    assert not (base / "tool").exists()
    assert not (base / "src/deep").exists()
    assert stat.S_IMODE((base / "src").stat().st_mode) == 0o700
    assert (base / "new/link").read_text() == "x\n"
    assert (base / "link/file").read_text() == "in\n"
    assert owners(base) == {os.geteuid()}
    assert "f755 9 ./src/main.py" in seen


async def test_chosen_paths_alone_are_applied(base: Path, opened: Opened) -> None:
    async with opened() as session:
        await output(session, WORK)
        before = contents(base)
        for wrong in ("src/none", "elsewhere"):
            with pytest.raises(ArgumentError, match="nothing was changed"):
                await session.apply([wrong])
        with pytest.raises(ArgumentTypeError):
            await session.apply("notes")
        assert contents(base) == before
        done = await session.apply(["notes", f"{base}/new/inner"])
        assert done.applied == ("new", "new/inner", "new/inner/file", "notes")
        assert (base / "tool").exists()
        assert not (base / "new/link").exists()
        # What was applied can be changed and applied again, and is no conflict.
        await output(session, "echo five >> notes; rm -r new")
        assert "M notes" in str(await session.diff())
        await session.apply()
    assert (base / "notes").read_text() == "one\ntwo\nthree\nfour\nfive\n"
    assert not (base / "new").exists()


async def test_what_changed_outside_is_a_conflict(base: Path, opened: Opened) -> None:
    async with opened() as session:
        await output(session, "echo mine > notes; rm -r src; echo mine > fresh; echo a > other")
        write(base / "notes", "theirs\n")
        write(base / "src/deep/old", "theirs\n")
        write(base / "fresh", "theirs\n")
        before = contents(base)
        with pytest.raises(ApplyRefusedError) as caught:
            await session.apply()
        assert caught.value.reason == "conflict"
        assert caught.value.paths == ("fresh", "notes", "src/deep/old")
        assert contents(base) == before
        assert (await session.apply(["other"])).applied == ("other",)
        await session.apply(["notes"], overwrite=True)
        assert (base / "notes").read_text() == "mine\n"
        assert (base / "fresh").read_text() == "theirs\n"


async def test_what_was_moved_there_is_a_conflict(base: Path, opened: Opened) -> None:
    """It bears times from before the overlay began, and nobody has seen it inside."""
    shutil.copytree(base / "src", base.parent / "other")
    write(base.parent / "other/main.py", "theirs\n")
    write(base.parent / "notes", "theirs\n")
    async with opened() as session:
        await output(session, "echo mine > src/main.py; rm src/deep/old; echo mine > notes")
        os.rename(base / "src", base.parent / "moved")
        os.rename(base.parent / "other", base / "src")
        os.rename(base.parent / "notes", base / "notes")
        with pytest.raises(ApplyRefusedError) as caught:
            await session.apply()
        assert caught.value.paths == ("notes", "src/deep/old", "src/main.py")
        assert contents(base)["src/main.py"].endswith("theirs\n")
        await session.apply(overwrite=True)
        await output(session, "echo again > src/main.py; chmod 700 tool")
        assert (await session.apply()).applied == ("src/main.py", "tool")


async def test_clock_set_back_hides_nothing(base: Path, opened: Opened) -> None:
    """What is changed outside may bear a time from before the overlay began."""
    async with opened() as session:
        await output(session, "echo mine > notes; echo mine > fresh")
        noted = Path(
            os.environ["XDG_STATE_HOME"],
            "sandyard/sessions",
            str(session.state.session_id),
            "overlay",
        )
        set_back(noted)
        write(base / "notes", "theirs\n")
        with pytest.raises(ApplyRefusedError) as caught:
            await session.apply()
        assert caught.value.paths == ("notes",)
        assert (base / "notes").read_text() == "theirs\n"
        assert (await session.apply(["fresh"])).applied == ("fresh",)


@pytest.mark.once
def test_clocks_are_compared() -> None:
    """The one for files with one that nobody sets; of another run of the machine, only the first."""
    began = Moment(10**18, 5 * 10**9, "one")
    later = Moment(began.time + 7, began.uptime + 7, "one")
    assert began.earliest(later) == began.time
    back = began.time - 60 * 10**9
    assert back - 10**9 < began.earliest(Moment(back, began.uptime, "one")) < back
    assert began.earliest(Moment(began.time + 1, 1, "other")) == began.time
    assert began.earliest(Moment(began.time - 1, 1, "other")) == -1
    assert Moment(10**18).earliest(Moment(10**18 - 1)) == -1


async def test_planted_files_must_be_named(base: Path, opened: Opened) -> None:
    """What programs outside would run, and links that lead out, are not applied unseen."""
    outside = base.parent / "outside"
    write(outside, "secret")
    async with opened() as session:
        await output(
            session,
            f"mkdir .vscode; echo x > .vscode/tasks.json; ln -s {outside} out; ln -s ../outside up;"
            "mkdir -p a/.git/hooks; echo x > a/.git/hooks/post-commit; echo x > .envrc; echo y > fine;"
            "mkdir -p bare/objects bare/refs; echo ref > bare/HEAD",
        )
        assert found(await session.diff(), ".envrc").planted
        before = contents(base)
        with pytest.raises(ApplyRefusedError) as caught:
            await session.apply()
        assert caught.value.reason == "planted"
        assert {".envrc", ".vscode", "out", "up", "a/.git", "bare/HEAD"} <= {*caught.value.paths}
        assert "fine" not in caught.value.paths
        for parent in ("a", "bare"):
            with pytest.raises(ApplyRefusedError):
                await session.apply([parent])
        assert contents(base) == before
        await session.apply(["fine", ".vscode", "out"])
        assert (base / ".vscode/tasks.json").exists()
        assert (base / "out").readlink() == outside
        assert not (base / ".envrc").exists()
    assert outside.read_text() == "secret"


async def test_bits_and_odd_kinds_stay_behind(base: Path, opened: Opened) -> None:
    async with opened() as session:
        await output(session, "echo x > bit; mkfifo pipe; ln notes again; echo h >> again")
        kept = Path(
            os.environ["XDG_STATE_HOME"], "sandyard/sessions", str(session.state.session_id)
        )
        os.chmod(kept / "changes/upper/bit", 0o6755)  # which no command can set
        done = await session.apply()
    assert done.lowered == ("bit",)
    assert done.skipped == ("pipe",)
    assert stat.S_IMODE((base / "bit").stat().st_mode) == 0o755
    assert not (base / "pipe").exists()
    assert (base / "again").read_text() == (base / "notes").read_text()


async def test_paths_swapped_beneath_lead_nowhere(base: Path, opened: Opened) -> None:
    """A directory that became a symlink meanwhile is not followed."""
    elsewhere = base.parent / "elsewhere"
    async with opened() as session:
        await output(session, "echo mine > src/main.py; echo x > src/added")

        def swap() -> None:
            elsewhere.mkdir()
            (base / "src").rename(base.parent / "moved")
            (base / "src").symlink_to(elsewhere)

        swap()
        with pytest.raises(ApplyRefusedError) as caught:
            await session.apply()
        assert "src" in caught.value.paths
        await session.apply(overwrite=True)  # the link is what is replaced
        assert not (base / "src").is_symlink()
        assert os.listdir(elsewhere) == []
        assert (base.parent / "moved/main.py").read_text() == "print('hello')\n"


async def test_discard_begins_anew(base: Path, opened: Opened) -> None:
    before = contents(base)
    async with opened() as session:
        await output(session, WORK)
        await session.discard()
        assert (await session.diff()).entries == ()
        assert await output(session, "cat notes; ls") == "one\ntwo\nthree\nlink\nnotes\nsrc\ntool\n"
        await output(session, "echo again > notes")
        await session.shutdown()
        await session.discard()
        with await session.read("notes") as file:
            assert file.read() == b"one\ntwo\nthree\n"
    assert contents(base) == before


async def test_apply_and_discard_take_turns(base: Path, opened: Opened) -> None:
    """What comes while an overlay is discarded waits until it is there again."""
    async with opened() as session:
        for _ in range(5):
            await output(session, "echo mine > notes")
            first, _, last = await asyncio.gather(
                session.apply(), session.discard(), session.apply()
            )
            assert (first.applied, last.applied) == (("notes",), ())
            (base / "notes").write_text("one\n")
            await session.discard()
        assert await output(session, "cat notes") == "one\n"


async def test_discard_knows_its_directory(base: Path, opened: Opened) -> None:
    """Nothing is thrown away, and nothing ends, where another directory stands in its place."""
    away = base.with_name("away")
    async with opened() as session:
        await output(session, "echo mine > notes; sleep 600 &")
        os.rename(base, away)
        os.mkdir(base)
        with pytest.raises(WorkspaceStartError) as refused:
            await session.discard()
        assert refused.value.context["reason"] == "not_its_own"
        assert await output(session, "cat notes; pgrep sleep | wc -l") == "mine\n1\n"
        os.rmdir(base)
        os.rename(away, base)
        assert str(await session.diff()) == "M notes"
        await session.discard()
        assert await output(session, "cat notes") == "one\ntwo\nthree\n"


async def test_only_overlays_have_changes() -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            for verb in (session.diff, session.apply, session.discard):
                with pytest.raises(ArgumentError, match="Overlay"):
                    await verb()
    finally:
        await client.delete(session)


async def test_much_to_compare_is_left_out(base: Path, opened: Opened) -> None:
    """Comparing lines takes up to the square of them: commands must not choose how long that is."""
    pattern = [f"{number % 130}\n" for number in range(12_000)]
    (base / "long").write_text("".join(pattern))
    async with opened() as session:
        await session.write("long", "".join(reversed(pattern)).encode())
        changes = await session.diff()
        change = found(changes, "long")
        assert (change.kind, change.text, change.truncated) == ("modified", None, True)


async def test_deep_changes_are_refused(base: Path, opened: Opened) -> None:
    """Each entry is walked to from the top: so thousands of levels would take hours."""
    deep = "mkdir deep; cd deep; for i in $(seq 600); do mkdir d; cd -P d; done"
    async with opened() as session:
        await output(session, f"echo x > near; ({deep})")
        changes = await session.diff()
        assert not changes.complete
        assert "too deep" in changes.notes[0]
        with pytest.raises(WorkspaceArchiveWriteError):
            await session.apply()
        assert not (base / "near").exists()
        assert (await session.apply(["near"])).applied == ("near",)


async def test_late_change_outside_is_kept(
    base: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that saves while much is being staged is not overwritten."""

    def staged(*args: object) -> None:
        write(base / "saved", "by an editor")
        (base / "saved").rename(base / "notes")
        fill_file(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(overlay_apply, "fill_file", staged)
    async with opened() as session:
        await session.write("notes", b"by a command")
        await session.write("tool", b"by a command")
        with pytest.raises(ApplyRefusedError) as refused:
            await session.apply()
        assert refused.value.context["paths"] == ("notes",)
        assert (base / "notes").read_text() == "by an editor"
        assert (base / "tool").read_text() == "#!/bin/sh\n"
        assert sorted(os.listdir(base)) == ["link", "notes", "src", "tool"]


async def test_endless_file_can_be_left(
    base: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command may append as fast as it is copied: who gives up does not wait for its end."""

    def staged(source: int, target: int, mode: int | None, stopped: threading.Event) -> None:
        stopped.set()
        fill_file(source, target, mode, stopped)

    monkeypatch.setattr(overlay_apply, "fill_file", staged)
    async with opened() as session:
        await session.write("notes", b"new" * 1_000_000)
        with pytest.raises(Abandoned):
            await session.apply()
    assert (base / "notes").read_text() == "one\ntwo\nthree\n"
