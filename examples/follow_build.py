"""Compile a C program in a sandbox and show what the compiler says as it says it."""

from __future__ import annotations

import asyncio
import sys

from sandyard import File, Manifest, UnixLocalSandboxClient

SOURCE = """\
#include <stdio.h>

int main(void) {
    int unused;
    puts("compiled and run inside");
    return 0;
}
"""


async def main() -> int:
    """Build, run, and keep the binary's size."""
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(entries={"hello.c": File(content=SOURCE)}))
    try:
        async with session:
            build = "cc -Wall -o hello hello.c && ./hello"
            async with session.stream(build, timeout=60) as running:
                async for chunk in running:
                    stream = sys.stdout if chunk.stream == "stdout" else sys.stderr
                    stream.write(chunk.data.decode())
            sizes = {entry.path.rpartition("/")[2]: entry.size for entry in await session.ls(".")}
            print(f"hello has {sizes.get('hello', 0)} bytes")
            return running.result.exit_code
    finally:
        await client.delete(session)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
