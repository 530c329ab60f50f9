"""Owns the tree that explanations are tried on: a workspace, data beside it, symlinks everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A workspace with a repository, data beside it, and symlinks everywhere."""
    for name in (
        "ws/a/file", "ws/a/deep/file", "ws/secret/file", "ws/.vscode/tasks.json", "ws/b/.envrc",
        "ws/.git/HEAD", "ws/.git/config", "ws/.git/hooks/pre-commit", "ws/.git/info/attributes",
        "ws/.git/info/exclude", "ws/.git/objects/x", "ws/.git/refs/x", "ws/b/.git/config",
        "ws/b/.git/HEAD", "ws/b/.git/objects/x", "ws/b/.git/refs/x",
        "data/file", "data/sub/file", "data/sub/deep/file", "data/sub/deep/er/file",
        "data/.git/HEAD", "data/.git/config", "data/.git/hooks/x", "data-not/file", "hidden/file",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content\n")
    for name, target in (
        ("ws/to-data", f"{tmp_path}/data"),
        ("ws/to-hidden", f"{tmp_path}/hidden/file"),
        ("ws/to-system", "/usr/bin/env"),
        ("ws/to-nothing", "missing/too"),
        ("ws/to-self", "to-self"),
        ("ws/to-etc", "../../../../../../../../etc"),
        ("ws/a/up", ".."),
        ("ws/a/to-deep", "deep/../deep"),
        ("data/to-hidden", "../hidden"),
        ("data/to-sub", "sub/deep"),
        ("named", "data"),
        ("way", "."),
    ):
        (tmp_path / name).symlink_to(target)
    return tmp_path
