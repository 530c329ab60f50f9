"""Made-up homes and toolchains for the search to find."""

from __future__ import annotations

import os
from pathlib import Path

from sandyard.platform.facts import Toolchains
from sandyard.platform.toolchains import ToolchainSearch, find_toolchains

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin")

SECRETS = (
    ".aws/credentials",
    ".cargo/credentials.toml",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".git-credentials",
    ".gnupg/private-keys-v1.d/key",
    ".kube/config",
    ".local/share/keyrings/login.keyring",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".ssh/id_ed25519",
    ".terraform.d/credentials.tfrc.json",
    "notes.txt",
    "projects/app/.env",
)
"""What lies in somebody's home and is never shown, relative to it."""


def make(root: Path, *names: str) -> None:
    """Make empty files, or directories where a name ends in a slash."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def make_venv(root: Path, base: str, python: str) -> None:
    """Make a virtual environment as ``python -m venv`` does."""
    make(root, "bin/pip", "lib/python3.12/site-packages/x.py")
    (root / "pyvenv.cfg").write_text(f"home = {base}\nversion = 3.12.1\n", encoding="utf-8")
    (root / "bin/python3").symlink_to(python)
    (root / "bin/python").symlink_to("python3")
    (root / "lib64").symlink_to("lib")


def find(home: Path, *directories: Path | str, **environ: str) -> Toolchains:
    """Look for toolchains in ``directories``."""
    search = ToolchainSearch(tuple(map(str, directories)), str(home), environ, SYSTEM)
    return find_toolchains(search)


def shown(found: Toolchains, path: Path | str) -> bool:
    """Whether a file is visible through ``found``, and not masked."""
    real = os.path.realpath(path)
    return real not in found.masks and any(
        real == root or real.startswith(f"{root}/") for root in found.roots
    )
