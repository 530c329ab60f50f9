"""A part of the library that can't be loaded is told as that, and only where the import was ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sandyard
from sandyard import LibraryLoadError
from sandyard.loading import as_told

# An installation is replaced while a program of it runs, and put back.
PROGRAM = """
import asyncio
import os
import sys
from sandyard import LibraryLoadError, SandboxError, StoreSnapshotSpec, UnixLocalSandboxClient

PLACE, AWAY = sys.argv[1], sys.argv[1] + ".away"


async def list_all(session):
    return [each async for each in session.glob("*")]


async def watch(session):
    async with session.watch(".") as changes:
        return changes


VERBS = {
    "copy": lambda session, client: session.copy("notes", "other"),
    "grep": lambda session, client: session.grep("one"),
    "terminal": lambda session, client: session.terminal("true"),
    "process": lambda session, client: session.start_process("true"),
    "watch": lambda session, client: watch(session),
    "review": lambda session, client: session.review(),
    "extract": lambda session, client: session.extract("notes.tar", b"no archive"),
    "persist": lambda session, client: session.persist_workspace(),
    "create": lambda session, client: client.create(snapshot=StoreSnapshotSpec()),
}


async def main():
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await session.write("notes", b"one")
        os.rename(PLACE, AWAY)
        told = []
        for name, verb in VERBS.items():
            try:
                await verb(session, client)
            except LibraryLoadError as error:
                assert error.retryable
                told.append(name)
            except SandboxError:
                pass
        os.rename(AWAY, PLACE)
        sys.path_importer_cache.clear()
        assert (await session.exec("cat notes")).stdout == b"one"
        terminal = await session.terminal("echo seen")
        await terminal.wait()
        assert terminal.scrollback().data == b"seen\\r\\n"
        print(*told)
    await client.delete(session)


asyncio.run(main())
"""


def test_moved_library_is_told(tmp_path: Path) -> None:
    place = tmp_path / "library" / "sandyard"
    shutil.copytree(Path(sandyard.__file__).parent, place)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, place],
        env={"PYTHONPATH": str(place.parent), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"terminal", "process", "create"} <= set(done.stdout.split()), done.stdout


def import_missing() -> None:
    import sandyard_is_not_there  # type: ignore[import-not-found]  # noqa: F401, PLC0415


@pytest.mark.parametrize("kind", [ImportError, OSError, MemoryError, ValueError])
def test_other_errors_stay(kind: type[Exception]) -> None:
    error = kind("the caller's own")
    assert as_told(error, "exec") is error


def test_callers_import_stays() -> None:
    with pytest.raises(ImportError) as raised:
        import_missing()
    assert as_told(raised.value, "exec") is raised.value
    assert not isinstance(raised.value, LibraryLoadError)
