"""Denied paths: closed inside whatever grants them, untouched outside, and nothing else is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandyard import Manifest, Policy, PolicyError, UnixLocalSandboxClient, UnixLocalSandboxSession


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A workspace and a granted directory, each with something to be denied."""
    for name in ("work/.env", "work/secrets/key", "work/file", "data/inner/key", "data/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("secret")
    (tmp_path / "alias").symlink_to("work/secrets/key")
    return tmp_path


@asynccontextmanager
async def denying(
    tree: Path, *names: str, field: str = "writes"
) -> AsyncIterator[UnixLocalSandboxSession]:
    deny = tuple(f"{tree}/{name}" for name in names)
    policy = Policy(deny=deny, **{field: (f"{tree}/data",)})  # type: ignore[arg-type]
    client = UnixLocalSandboxClient(policy=policy)
    session = await client.create(manifest=Manifest(root=f"{tree}/work"))
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


ATTACKS = [
    ("work/.env", "cat .env"),
    ("work/.env", "echo x > .env"),
    ("work/.env", "chmod 777 .env"),
    ("work/.env", "mv .env else"),
    ("work/.env", "mv file .env"),
    ("work/.env", "rm .env"),
    ("work/.env", "ln .env else && cat else"),
    ("work/secrets", "ls secrets"),
    ("work/secrets", "cat secrets/key"),
    ("work/secrets", "touch secrets/new"),
    ("work/secrets", "chmod 777 secrets"),
    ("work/secrets", "mv secrets else"),
    ("work/secrets", "rm -rf secrets"),
    ("work/secrets", "cat /proc/self/cwd/secrets/key"),
    ("alias", "cat secrets/key"),
    ("data/inner", "cat {tree}/data/inner/key"),
    ("data/inner", "mv {tree}/data/inner {tree}/data/else"),
    ("data", "ls {tree}/data"),
    ("data", "cat {tree}/data/file"),
]


def contents(tree: Path) -> dict[Path, bytes]:
    """All files of a tree and what they hold."""
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("denied", "attack"), ATTACKS)
async def test_attack_is_refused(tree: Path, denied: str, attack: str) -> None:
    before = contents(tree)
    async with denying(tree, denied) as session:
        result = await session.exec(attack.format(tree=tree))
        assert result.exit_code != 0
        assert b"secret" not in result.stdout
    assert contents(tree) == before
    async with denying(tree) as session:  # without the denial it works
        assert (await session.exec(attack.format(tree=tree))).exit_code == 0


@pytest.mark.parametrize("field", ["reads", "writes"])
async def test_the_rest_is_open(tree: Path, field: str) -> None:
    names = ("work/.env", "work/secrets", "data/inner", "work/missing")
    async with denying(tree, *names, field=field) as session:
        result = await session.exec(f"cat file {tree}/data/file && touch new missing && ls -A")
    assert (result.exit_code, result.stdout.decode()) == (
        0,
        "secretsecret.env\nfile\nmissing\nnew\nsecrets\n",
    )


async def test_system_paths_too() -> None:
    client = UnixLocalSandboxClient(policy=Policy(deny=("/usr/share", "/usr/bin/env")))
    session = await client.create()
    try:
        async with session:
            assert (await session.exec("ls /usr/share")).exit_code != 0
            assert (await session.exec("/usr/bin/env")).exit_code == 126
            assert (await session.exec("ls /usr/bin > /dev/null")).exit_code == 0
    finally:
        await client.delete(session)


async def test_workspace_stays(tree: Path) -> None:
    with pytest.raises(PolicyError, match="contains, the workspace"):
        async with denying(tree, "work"):
            pass
