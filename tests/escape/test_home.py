"""Tools in somebody's home work where they lie, and no credentials come with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.escape.bait import SECRET
from tests.escape.inside import sandbox

TOOLS = (
    ".cargo/bin/cargo",
    ".local/bin/tool",
    ".nvm/versions/node/v20/bin/node",
    ".pyenv/versions/3.12/bin/python9",
)
MARKS = (
    ".nvm/nvm.sh",
    ".nvm/versions/node/v20/lib/node_modules/npm/package.json",
    ".pyenv/libexec/pyenv",
    ".cargo/env",
)
CREDENTIALS = (
    ".aws/credentials",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/gh/hosts.yml",
    ".config/pip/pip.conf",
    ".docker/config.json",
    ".git-credentials",
    ".gnupg/key",
    ".local/bin/.env",
    ".local/share/keyrings/login.keyring",
    ".netrc",
    ".npmrc",
    ".nvm/.npmrc",
    ".nvm/versions/node/v20/etc/npmrc",
    ".pyenv/versions/3.12/pip.conf",
    ".pypirc",
    ".ssh/id_ed25519",
    ".yarnrc.yml",
    "notes",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with toolchains on PATH, and what lies beside them."""
    made = tmp_path / "somebody"
    for name in (*TOOLS, *MARKS, *CREDENTIALS):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(SECRET if name in CREDENTIALS else "#!/bin/sh\necho it works\n")
        (made / name).chmod(0o755)
    path = ":".join(str((made / name).parent) for name in TOOLS)
    monkeypatch.setenv("PATH", f"{path}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(made))
    return made


async def test_tools_without_credentials(home: Path) -> None:
    async with sandbox() as session:
        for name in TOOLS:
            told = await session.exec(Path(name).name)
            assert told.stdout == b"it works\n", (name, told)
            found = await session.exec(f"command -v {Path(name).name}")
            assert found.stdout.decode().strip() == str(home / name)
            assert not (await session.exec(f"echo x >> {home / name}")).ok()
        looked = await session.exec(
            f"grep -rl {SECRET} {home}; find {home} -name notes", timeout=60
        )
        assert looked.stdout == b"", looked.stdout.decode()
        for name in CREDENTIALS:
            assert SECRET.encode() not in (await session.exec(f"cat {home / name}")).stdout, name
