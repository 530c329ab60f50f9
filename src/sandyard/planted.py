"""Planted files: names in a workspace that make programs outside run or obey what stands there."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

__all__ = [
    "GIT_DIRECTORY",
    "GIT_KEYS",
    "GIT_PARTS",
    "LIBRARY",
    "PLANTED",
    "PROTECTED_NAMES",
    "Planted",
    "ProtectedPart",
]


class Planted(NamedTuple):
    """One name.

    Attributes:
        name: of a file or directory, wherever it stands.
        reader: the program that obeys it, and how.
        protected: whether it is kept as it was by default; what a project's own work may well
            change is only reviewed.
    """

    name: str
    reader: str
    protected: bool


class ProtectedPart(NamedTuple):
    """Something that a session keeps as it is.

    Attributes:
        path: where it is inside, absolute.
        source: where it is on the host, absolute and without symlinks.
        inode: its ``(st_dev, st_ino)``.
        read_only: False only holds it in its place: it can be changed, not moved or replaced.
    """

    path: str
    source: str
    inode: tuple[int, int]
    read_only: bool


LIBRARY: Final = os.path.realpath(os.path.dirname(__file__))
"""This library itself: its modules are loaded when they are needed, and its first process is run from
here for each start, outside. A virtual environment often lies within the project that it is for."""

GIT_DIRECTORY: Final = ".git"

GIT_PARTS: Final = (
    "hooks",
    "config",
    "config.worktree",
    "info/attributes",
    "commondir",
    "gitdir",
)
"""What in a Git directory names programs that Git runs (hooks, the keys of ``GIT_KEYS``), or where
they are looked for."""

PLANTED: Final = (
    Planted(".claude", "Claude Code: hooks, permissions, servers that it starts", True),
    Planted(".codex", "Codex: configuration and servers that it starts", True),
    Planted(".continue", "Continue: servers that it starts", True),
    Planted(".cursor", "Cursor: rules, hooks and servers that it starts", True),
    Planted(".devcontainer", "editors: commands that build and start a container", True),
    Planted(".devcontainer.json", "editors: commands that build and start a container", True),
    Planted(".envrc", "direnv: a shell script, run on entering the directory", True),
    Planted(".gemini", "Gemini CLI: settings and servers that it starts", True),
    Planted(".husky", "Git: hooks, through core.hooksPath", True),
    Planted(".idea", "JetBrains editors: run configurations and file watchers", True),
    Planted(".mcp.json", "agents: servers that they start", True),
    Planted(".roo", "Roo Code: servers that it starts", True),
    Planted(".vscode", "Visual Studio Code: tasks, settings and debuggers", True),
    Planted(".zed", "Zed: tasks and settings", True),
    Planted(".cargo", "Cargo: compilers, linkers and wrappers that it runs", False),
    Planted(".dir-locals.el", "Emacs: settings and code", False),
    Planted(".exrc", "vi: commands, where exrc is on", False),
    Planted(".gdbinit", "gdb: commands", False),
    Planted(".lldbinit", "lldb: commands", False),
    Planted(".mise.toml", "mise: environment and tasks", False),
    Planted(".npmrc", "npm: shells and registries that it uses", False),
    Planted(".nvim.lua", "Neovim: code, where exrc is on", False),
    Planted(".pre-commit-config.yaml", "pre-commit: programs that it fetches and runs", False),
    Planted(".yarnrc.yml", "Yarn: a program that it runs in its own place", False),
    Planted("mise.toml", "mise: environment and tasks", False),
)
"""What other programs than Git look for in a directory that they are used in."""

PROTECTED_NAMES: Final = (GIT_DIRECTORY, *(each.name for each in PLANTED if each.protected))
"""What a policy protects unless it says otherwise."""

GIT_KEYS: Final = (
    "alias.*",
    "browser.*.cmd",
    "browser.*.path",
    "core.askpass",
    "core.attributesfile",
    "core.editor",
    "core.excludesfile",
    "core.fsmonitor",
    "core.gitproxy",
    "core.hookspath",
    "core.pager",
    "core.sshcommand",
    "core.worktree",
    "credential.*",
    "diff.external",
    "diff.*.command",
    "diff.*.textconv",
    "difftool.*",
    "extensions.worktreeconfig",
    "filter.*.clean",
    "filter.*.process",
    "filter.*.smudge",
    "gpg.*",
    "help.browser",
    "http.*",
    "include.path",
    "includeif.*.path",
    "instaweb.*",
    "interactive.difffilter",
    "man.*",
    "merge.*.driver",
    "mergetool.*",
    "pager.*",
    "protocol.*",
    "remote.*.proxy",
    "remote.*.receivepack",
    "remote.*.uploadpack",
    "remote.*.vcs",
    "sendemail.*",
    "sequence.editor",
    "submodule.*.update",
    "trailer.*.cmd",
    "trailer.*.command",
    "uploadpack.packobjectshook",
    "url.*",
    "web.browser",
)
"""Keys of Git's configuration that name a program, a file with more keys, or where to send what
(git-config(1)); lower case, ``*`` for any subsection or key."""
