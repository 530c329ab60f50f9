"""A host program that fills a small file system of its own, and works on in it.

Run it in a mount namespace of its own, as root. The arguments are a directory to mount it on and
which of its sizes is small: ``bytes`` or ``files``.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile

from sandyard import Manifest, SandboxError, UnixLocalSandboxClient, UnixLocalSandboxSession
from sandyard.manifest import File
from tests.exhaustion.programs import describe, tell
from tests.exhaustion.shortage import count_descriptors

Session = UnixLocalSandboxSession

SIZES = {"bytes": "size=4m,mode=1777", "files": "size=64m,nr_inodes=64,mode=1777"}
FILL = {
    "bytes": "head -c 100000000 /dev/zero > filler; echo more >> filler",
    "files": "i=0; while : > filler-$i; do i=$((i+1)); done",
}


async def outcome(session: Session) -> str:
    """How writing goes, by the host and by a command."""
    said = []
    for path in ("kept", "new", "made/below/new"):
        try:
            await session.write(path, b"x" * 100_000)
            said.append("ok")
        except SandboxError as error:
            said.append(describe(error))
    try:
        await session.mkdir("directory")
        said.append("ok")
    except SandboxError as error:
        said.append(describe(error))
    return "|".join(said)


async def fill_and_go(session: Session, kind: str) -> None:
    """Fill it from inside, look what still goes, free it, and look again."""
    await session.write("kept", b"old")
    before = count_descriptors()
    result = await session.exec(FILL[kind])
    tell("full" if b"No space left" in result.stderr else repr(result))
    names = {entry.path for entry in await session.ls(".")}
    tell(await outcome(session))
    with await session.read("kept") as file:
        tell(file.read(10).decode())
    left = {entry.path for entry in await session.ls(".")} - names
    tell(" ".join(sorted(path.rpartition("/")[2] for path in left)))
    tell((await session.exec("echo on; cat kept | head -c 3")).stdout.decode())
    await session.exec("rm -f filler*")
    await session.rm("directory", recursive=True)
    await session.write("new", b"x" * 100_000)
    tell("freed" if count_descriptors() == before else "leaks")


async def refuse_another(client: UnixLocalSandboxClient) -> None:
    """A session whose workspace can't be made: refused, and nothing left."""
    before = sorted(os.listdir(tempfile.gettempdir()))
    manifest = Manifest(entries={"large": File(content=b"x" * 8_000_000)})
    session = None
    try:
        session = await client.create(manifest=manifest)
        await session.start()
        tell("ok")
    except SandboxError as error:
        tell(describe(error))
    if session is not None:
        await client.delete(session)
    tell("clean" if sorted(os.listdir(tempfile.gettempdir())) == before else "litter")


async def main(kind: str) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        await fill_and_go(session, kind)
    await client.delete(session)
    if kind == "bytes":
        await refuse_another(client)


if __name__ == "__main__":
    _, place, chosen = sys.argv
    subprocess.run(["mount", "-t", "tmpfs", "-o", SIZES[chosen], "full", place], check=True)
    os.environ["TMPDIR"] = place
    asyncio.run(main(chosen))
