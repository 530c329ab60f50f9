"""What each verb does at a symlink, as the one table in the guide says."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sandyard import Manifest, SandboxError, UnixLocalSandboxClient, UnixLocalSandboxSession

GUIDE = Path(__file__).parents[2] / "docs/guides/files-and-manifests.md"

Answer = str | None
Act = Callable[[UnixLocalSandboxSession, str], Awaitable[Answer]]


def read_table() -> list[tuple[str, str, str]]:
    """The rows of the guide's table: a verb, and what it does at both kinds of links."""
    text = GUIDE.read_text().partition("| verb | a link to something | a link to nothing |")[2]
    rows = []
    for line in text.splitlines()[2:]:
        if not line.startswith("|"):
            break
        verbs, something, nothing = (cell.strip() for cell in line.strip("|").split("|"))
        named, _, how = re.sub(r" with .*", ", itself", verbs).partition(", the ")
        itself = ", itself" if named.endswith(", itself") else ""
        ending = f"{itself}, {how}" if how else itself
        rows += [(verb + ending, something, nothing) for verb in re.findall(r"`(\w+)`", named)]
        for how in re.findall(r"`apply_patch`, an? (\w+ ?\w*)", verbs):
            rows[-1] = (f"apply_patch, {how}", something, nothing)
    return rows


def by_kind(is_link: bool) -> str:
    return "the link" if is_link else "the target"


async def done(work: Awaitable[object]) -> None:
    """Do it; what it did is seen in the files."""
    await work


async def read(session: UnixLocalSandboxSession, path: str) -> Answer:
    with await session.read(path) as file:
        assert file.read() == b"content"
    return "the target"


async def read_range(session: UnixLocalSandboxSession, path: str) -> Answer:
    assert await session.read_range(path, size=7) == b"content"
    return "the target"


async def read_chunks(session: UnixLocalSandboxSession, path: str) -> Answer:
    assert [chunk async for chunk in session.read_chunks(path)] == [b"content"]
    return "the target"


async def stat(session: UnixLocalSandboxSession, path: str) -> Answer:
    if not await session.exists(path):
        return "nothing there"
    return by_kind((await session.stat(path)).kind == "symlink")


async def stat_itself(session: UnixLocalSandboxSession, path: str) -> Answer:
    return by_kind((await session.stat(path, follow_symlinks=False)).kind == "symlink")


async def exists(session: UnixLocalSandboxSession, path: str) -> Answer:
    return "the target" if await session.exists(path) else "nothing there"


async def exists_itself(session: UnixLocalSandboxSession, path: str) -> Answer:
    return "the link" if await session.exists(path, follow_symlinks=False) else "nothing there"


async def ls(session: UnixLocalSandboxSession, path: str) -> Answer:
    assert [entry.path[-5:] for entry in await session.ls(f"{path}-dir")] == ["inner"]
    return "the target"


async def glob(session: UnixLocalSandboxSession, path: str) -> Answer:
    assert await session.glob("*", path=f"{path}-dir") == ["inner"]
    return "the target"


async def grep(session: UnixLocalSandboxSession, path: str) -> Answer:
    assert len((await session.grep("content", path)).matches) == 1
    return "the target"


async def watch(session: UnixLocalSandboxSession, path: str) -> Answer:
    async with session.watch(f"{path}-dir"):
        return "the target"


async def mkdir(session: UnixLocalSandboxSession, path: str) -> Answer:
    await session.mkdir(f"{path}-dir")
    return "the target"


async def normalize(session: UnixLocalSandboxSession, path: str) -> Answer:
    return by_kind((await session.normalize_path(path)).name == path)


def at(session: UnixLocalSandboxSession, name: str) -> Path:
    """A name of the workspace, on the host."""
    return Path(session.state.manifest.root, name)


def patch(kind: str, diff: str) -> Act:
    return lambda s, p: done(s.apply_patch({"type": kind, "path": p, "diff": diff}))


ACTS: dict[str, Act] = {
    "read": read,
    "read_range": read_range,
    "read_chunks": read_chunks,
    "write": lambda s, p: done(s.write(p, b"new")),
    "append": lambda s, p: done(s.append(p, b"new")),
    "stat": stat,
    "exists": exists,
    "stat, itself": stat_itself,
    "exists, itself": exists_itself,
    "ls": ls,
    "watch": watch,
    "grep": grep,
    "glob": glob,
    "mkdir": mkdir,
    "chmod": lambda s, p: done(s.chmod(p, 0o600)),
    "copy, source": lambda s, p: done(s.copy(p, "copied")),
    "copy, destination": lambda s, p: done(s.copy("other", p)),
    "upload, source on the host": lambda s, p: done(s.upload(at(s, p), "copied")),
    "upload, destination": lambda s, p: done(s.upload(at(s, "other"), p)),
    "download, source": lambda s, p: done(s.download(p, at(s, "copied"))),
    "download, destination on the host": lambda s, p: done(s.download("other", at(s, p))),
    "mv, source": lambda s, p: done(s.mv(p, "moved")),
    "mv, destination": lambda s, p: done(s.mv("other", p)),
    "rm": lambda s, p: done(s.rm(p)),
    "apply_patch, update": patch("update_file", "-content\n+new"),
    "apply_patch, new file": patch("create_file", "+new"),
    "apply_patch, deletion": patch("delete_file", ""),
    "normalize_path": normalize,
}


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[UnixLocalSandboxSession]:
    base = tmp_path / "work"
    (base / "dir").mkdir(parents=True)
    (base / "dir/inner").touch()
    for name in ("file", "other"):
        (base / name).write_bytes(b"content")
    for name, target in (
        ("link", "file"),
        ("link-dir", "dir"),
        ("void", "none"),
        ("void-dir", "gone"),
    ):
        (base / name).symlink_to(target)
    client = UnixLocalSandboxClient()
    made = await client.create(manifest=Manifest(root=str(base)))
    async with made:
        yield made
    await client.delete(made)


async def observe(session: UnixLocalSandboxSession, act: Act, path: str) -> str:
    """What a verb did, as the files show it."""
    base = Path(session.state.manifest.root)
    target = "file" if path == "link" else "none"
    try:
        answer = await act(session, path)
    except SandboxError:
        assert (base / path).is_symlink()
        return "refused"
    if not (base / path).is_symlink():
        return "the link"
    if path == "void" and ((base / target).exists() or (base / "gone").exists()):
        return "makes the target"
    if answer is None and path == "link":
        return "the target"  # which of the two is told by the link that is still there
    assert answer is not None
    return answer


def test_table_and_tests_agree() -> None:
    assert {verb for verb, _, _ in read_table()} == set(ACTS)


@pytest.mark.parametrize("kind", ["link", "void"])
@pytest.mark.parametrize("verb", ACTS)
async def test_verb_does_as_the_guide_says(
    session: UnixLocalSandboxSession, verb: str, kind: str
) -> None:
    (row,) = (row for row in read_table() if row[0] == verb)
    said = row[1] if kind == "link" else row[2]
    assert await observe(session, ACTS[verb], kind) == said
