"""What a confined command really gets: hundreds of paths, tried in one command by the kernel's word."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from sandyard import Manifest, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession


@asynccontextmanager
async def opened(root: Path | None, policy: Policy) -> AsyncIterator[UnixLocalSandboxSession]:
    """A running session."""
    client = UnixLocalSandboxClient(policy=policy)
    manifest = Manifest() if root is None else Manifest(root=str(root))
    session = await client.create(manifest=manifest)
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


def make_file(path: str) -> None:
    """Make a file, with what leads to it, and remove both; it runs inside too."""
    missing: list[str] = []
    while not os.path.lexists(os.path.dirname(path if not missing else missing[-1])):
        missing.append(os.path.dirname(path if not missing else missing[-1]))
    try:
        for directory in reversed(missing):
            os.mkdir(directory)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(path)
    finally:
        for directory in missing:
            if os.path.isdir(directory):
                os.rmdir(directory)


def try_path(path: str) -> str:
    """Try to read and to write, and tell what works; it runs inside, so it stands alone."""
    is_directory = os.path.isdir(path)
    try:
        if is_directory:
            os.mkdir(path + "/probe")
            os.rmdir(path + "/probe")
        elif os.path.exists(path):
            os.close(os.open(path, os.O_WRONLY | os.O_NOCTTY))
        else:
            make_file(path if ".." in path.split("/") else os.path.realpath(path))
    except OSError:
        pass
    else:
        return "write"
    try:
        if is_directory:
            os.listdir(path)
        else:
            os.close(os.open(path, os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return "none"
    return "read"


_PROGRAM = f"""
import json, os, sys
{inspect.getsource(make_file)}
{inspect.getsource(try_path)}
json.dump([try_path(path) for path in json.load(sys.stdin)], sys.stdout)
"""


async def probe(session: UnixLocalSandboxSession, paths: Iterable[str]) -> dict[str, str]:
    """The access that a command has to each path."""
    wanted = list(paths)
    done = await session.exec(
        "/usr/bin/env", "python3", "-c", _PROGRAM, shell=False, stdin=json.dumps(wanted).encode()
    )
    assert done.exit_code == 0, done.stderr
    return dict(zip(wanted, json.loads(done.stdout), strict=True))


async def explained(session: UnixLocalSandboxSession, paths: Iterable[str]) -> dict[str, str]:
    """The access that is told of each path."""
    return {path: (await session.why(path)).access for path in paths}
