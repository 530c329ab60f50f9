"""The file verbs as another user: what the shell refuses they refuse, and what they make is the user's."""

from __future__ import annotations

import io
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sandyard import (
    SandboxError,
    UnixLocalSandboxSession,
)
from tests.users.conftest import SHARED, is_refused, said

Session = UnixLocalSandboxSession
Verb = Callable[[Session, str], Awaitable[object]]

PATCH = [{"type": "update_file", "path": "shut", "diff": "-old\n+x\n"}]

VERBS: dict[str, tuple[Verb, str]] = {
    "read": (lambda s, user: s.read("own/file", user=user), "cat own/file"),
    "ls": (lambda s, user: s.ls("own", user=user), "ls own"),
    "stat": (lambda s, user: s.stat("own/file", user=user), "stat own/file"),
    "write": (lambda s, user: s.write("own/new", b"x", user=user), "touch own/new"),
    "replace": (lambda s, user: s.write("shut", b"x", user=user), "echo x > shut"),
    "append": (lambda s, user: s.append("shut", b"x", user=user), "echo x >> shut"),
    "mkdir": (lambda s, user: s.mkdir("made", user=user), "mkdir made"),
    "rm": (lambda s, user: s.rm("file", user=user), "rm -f file"),
    "mv": (lambda s, user: s.mv("file", "moved", user=user), "mv file moved"),
    "chmod": (lambda s, user: s.chmod("file", 0o644, user=user), "chmod 644 file"),
    "copy": (lambda s, user: s.copy("shut", "copy", user=user), "cp shut copy"),
    "patch": (lambda s, user: s.apply_patch(PATCH, user=user), "echo x > shut"),
}
"""Verbs on what is agent's alone, and the command that says the same."""


@pytest.mark.root
@pytest.mark.parametrize("name", VERBS)
async def test_verbs_and_shell_agree(session: Session, name: str) -> None:
    verb, command = VERBS[name]
    await said(session, "mkdir -m 700 own; touch own/file file; echo old > shut; chmod 600 shut")
    before = await said(session, "ls -lR --time-style=full-iso")
    assert await is_refused(session, command, "reviewer")
    with pytest.raises(SandboxError) as caught:
        await verb(session, "reviewer")
    assert "permission denied" in str(caught.value) or "somebody else's" in str(caught.value)
    assert await said(session, "ls -lR --time-style=full-iso") == before
    control = await verb(session, "agent")
    if isinstance(control, io.IOBase):
        control.close()


@pytest.mark.root
async def test_what_is_made_is_the_users(session: Session) -> None:
    await said(session, SHARED)
    user = "reviewer"
    await session.write("share/file", b"one", user=user)
    await session.append("share/file", b" two", user=user)
    await session.mkdir("share/a/b", parents=True, user=user)
    await session.copy("share/file", "share/a/copy", user=user)
    await session.copy("share/a", "share/tree", recursive=True, user=user)
    await session.mv("share/a/copy", "share/a/moved", user=user)
    await session.chmod("share/a/moved", 0o640, user=user)
    owners = await said(session, "find share -mindepth 1 -printf '%P %u %g\\n' | sort", "reviewer")
    names = ["a", "a/b", "a/moved", "file", "tree", "tree/b", "tree/copy"]
    assert owners.splitlines() == [f"{name} reviewer reviewer" for name in names]
    listed = await session.ls("share", recursive=True, user=user)
    assert {(entry.owner, entry.group) for entry in listed} == {("reviewer", "reviewer")}
    described = await session.stat("share")
    assert (described.owner, described.group) == ("agent", "team")
    with await session.read("share/file", user=user) as file:
        assert file.read() == b"one two"
    await session.rm("share/tree", recursive=True, user=user)
    # What is another's, and may be written to, stays the other's.
    await session.write("share/file", b"agent's words")
    assert (await session.stat("share/file")).owner == "reviewer"


@pytest.mark.root
async def test_groups_count(session: Session) -> None:
    await said(
        session, f"{SHARED}; echo shared > share/file; chgrp team share/file; chmod 640 share/file"
    )
    with await session.read("share/file", user="reviewer") as file:
        assert file.read() == b"shared\n"
    with pytest.raises(SandboxError):
        await session.read("share/file", user="other")
    assert await is_refused(session, "cat share/file", "other")


@pytest.mark.root
async def test_search_is_the_users(session: Session) -> None:
    await said(session, "mkdir open; echo key > open/hers; echo key > open/his; chmod 600 open/his")
    found = await session.grep("key", "open", user="reviewer")
    assert [match.path.rpartition("/")[2] for match in found.matches] == ["hers"]
    assert len((await session.grep("key", "open")).matches) == 2
    await said(session, "mkdir -m 700 open/own; touch open/own/file")
    everything = [
        match.rpartition("/")[2] for match in await session.glob("open/**", user="reviewer")
    ]
    assert "hers" in everything
    assert "file" not in everything
    with pytest.raises(SandboxError):
        await session.exists("open/own/file", user="reviewer")


@pytest.mark.root
async def test_changes_are_seen(session: Session) -> None:
    await said(session, SHARED)
    async with session.watch("share", user="reviewer") as changes:
        await said(session, "mkdir -m 777 share/new; touch share/new/file")
        seen: set[str] = set()
        async for batch in changes:
            seen |= {change.path.rpartition("/")[2] for change in batch}
            if {"new", "file"} <= seen:
                break
    await said(session, "mkdir -m 700 own")
    with pytest.raises(SandboxError):
        async with session.watch("own", user="reviewer"):
            pass


@pytest.mark.root
async def test_links_lead_no_further(session: Session) -> None:
    await said(
        session, "mkdir -m 777 open; mkdir -m 700 own; echo key > own/key; chmod 600 own/key"
    )
    await said(session, "ln -s ../own/key open/link; ln -s /etc/shadow open/out", "reviewer")
    for name in ("open/link", "open/out"):
        with pytest.raises(SandboxError):
            await session.read(name, user="reviewer")
    with await session.read("open/link") as file:
        assert file.read() == b"key\n"


@pytest.mark.root
async def test_transfers_are_the_users(session: Session, tmp_path: Path) -> None:
    await said(session, f"{SHARED}; mkdir -m 700 own; touch own/file")
    source = tmp_path / "source"
    source.mkdir()
    source.chmod(0o755)  # whatever the umask: agent lists the copy
    (source / "a").write_text("a")
    await session.upload(source, "share/tree", user="reviewer")
    await session.upload(source / "a", "share/a", user="reviewer")
    owners = await said(session, "cd share; find tree a -printf '%p %u:%g\\n' | sort")
    assert owners.splitlines() == [f"{name} reviewer:reviewer" for name in ("a", "tree", "tree/a")]
    await said(session, "chmod 700 share/tree", "reviewer")
    await session.download("share/tree", tmp_path / "copy", user="reviewer")
    facts = (tmp_path / "copy" / "a").stat()
    assert (facts.st_uid, facts.st_size) == (os.geteuid(), 1)
    with pytest.raises(SandboxError, match="permission denied"):
        await session.upload(source, "own/tree", user="reviewer")
    for name in ("own", "own/file", "share/tree"):
        with pytest.raises(SandboxError, match="permission denied"):
            await session.download(name, tmp_path / "none", user="other")
    assert not (tmp_path / "none").exists()


@pytest.mark.root
async def test_downloads_are_ours(session: Session, tmp_path: Path) -> None:
    # The reader needs no rights where the caller wants it, and gets none there.
    await said(session, SHARED)
    await said(session, "mkdir -m 700 share/tree; echo one > share/tree/a", "reviewer")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "link").symlink_to(closed / "behind")
    for name in ("file", "file", "link"):
        await session.download("share/tree/a", closed / name, user="reviewer")
        assert (closed / name).read_text() == "one\n"
    assert (closed / "behind").is_file()
    await session.download("share", closed / "share", user="reviewer")
    await said(session, "echo two > share/tree/a", "reviewer")
    await session.download("share", closed / "share", user="reviewer")
    assert (closed / "share/tree/a").read_text() == "two\n"
    assert (closed / "share/tree").stat().st_uid == os.geteuid()
