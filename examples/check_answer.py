"""Try code that a model wrote: four answers to one task, at the same time, each on its own."""

from __future__ import annotations

import asyncio

from sandyard import ExecTimeoutError, File, Manifest, UnixLocalSandboxClient

TESTS = """\
from answer import is_prime

assert [n for n in range(20) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19]
print("all tests pass")
"""

ANSWERS = {
    "right": "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, n))\n",
    "wrong": "def is_prime(n):\n    return n % 2 == 1\n",
    "endless": "def is_prime(n):\n    while True: pass\n",
    "curious": "import pathlib\n\nprint(pathlib.Path('/etc/shadow').read_text())\n",
}


async def judge(client: UnixLocalSandboxClient, answer: str) -> str:
    """Say what becomes of an answer, each in a sandbox of its own."""
    manifest = Manifest(entries={"answer.py": File(content=answer)})
    session = await client.create(manifest=manifest)
    try:
        async with session:
            result = await session.exec(
                "python3", "-", stdin=TESTS.encode(), env={"PYTHONPATH": "."}, timeout=2
            )
            lines = (result.stdout or result.stderr).decode().strip().splitlines()
            return lines[-1] if lines else f"exit code {result.exit_code}"
    except ExecTimeoutError:
        return "took longer than 2 s"
    finally:
        await client.delete(session)


async def main() -> None:
    """Judge all answers at the same time."""
    client = UnixLocalSandboxClient()
    verdicts = await asyncio.gather(*(judge(client, answer) for answer in ANSWERS.values()))
    for name, verdict in zip(ANSWERS, verdicts, strict=True):
        print(f"{name:<8} {verdict}")


if __name__ == "__main__":
    asyncio.run(main())
