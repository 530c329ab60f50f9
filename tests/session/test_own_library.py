"""The library itself, where it lies in what commands may write to, as in a project's own environment."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sandyard

PROGRAM = """
import asyncio, os, sys
from sandyard import BindMount, Manifest, Policy, SandboxError, UnixLocalSandboxClient

ATTEMPTS = (
    "cp planted lib/sandyard/_bin/planted",
    "mv -f planted lib/sandyard/_bin/sandyard-init",
    "cat planted > lib/sandyard/_bin/sandyard-init",
    "mv lib/sandyard/_bin lib/sandyard/_bin2",
    "mv lib/sandyard lib/other",
    "mv lib other",
    "rm -rf lib",
)

async def main(place, root, policy, given):
    client = UnixLocalSandboxClient(policy=policy)
    made = await client.create(manifest=Manifest(root=root, entries=given))
    async with made as session:
        script = f"#!/bin/sh\\ntouch {sys.argv[1]}\\n".encode()
        await session.exec(f"cd {place} && cat > planted", stdin=script)
        for attempt in ATTEMPTS:
            print((await session.exec(f"cd {place} && chmod 755 planted && {attempt}")).exit_code)
        print((await session.exec(f"cd {place} && touch lib/added && rm planted")).exit_code)
        try:
            await session.write(f"{place}/lib/sandyard/_bin/sandyard-init", b"x")
        except SandboxError as error:
            print("refused")
    await client.delete(made)
    async with await client.create() as session:
        print((await session.exec("echo well")).stdout.decode().strip())
    await client.delete(session)
    for inner in (f"{here}/lib/sandyard", f"{here}/lib/sandyard/_bin"):
        try:
            async with await client.create(manifest=Manifest(root=inner)):
                pass
        except SandboxError as error:
            print("library" in error.message)

here = os.path.dirname(os.path.abspath(__file__))
place, root, policy, given = {
    "workspace": (".", here, None, {}),
    "grant": (here, "/workspace", Policy(writes=(here,)), {}),
    "mount": ("in", "/workspace", None, {"in": BindMount(source=here, read_only=False)}),
}[sys.argv[2]]
asyncio.run(main(place, root, policy, given))
"""


HELD = ["1", "1", "2", "1", "1", "1", "1", "0", "refused", "well", "True", "True"]


@pytest.mark.parametrize("where", ["workspace", "grant", "mount"])
async def test_library_stays(tmp_path: Path, where: str) -> None:
    project = tmp_path / "project"
    place = Path(sandyard.__file__).parent
    await asyncio.to_thread(shutil.copytree, place, project / "lib" / "sandyard")
    (project / "main.py").write_text(PROGRAM)
    variables = dict(os.environ) | {"PYTHONPATH": ":".join((f"{project}/lib", *sys.path))}
    words = [sys.executable, str(project / "main.py"), str(tmp_path / "ran"), where]
    done = await asyncio.to_thread(subprocess.run, words, env=variables, capture_output=True)
    assert done.stdout.decode().split() == HELD, done.stderr.decode()
    assert done.returncode == 0
    assert not (tmp_path / "ran").exists()
