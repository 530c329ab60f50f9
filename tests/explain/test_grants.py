"""A grant is true: a new session with it allows what was refused. And it is the least that does."""

from __future__ import annotations

import ast
import dataclasses
import os
from pathlib import Path

import pytest

from sandyard import Denial, Explanation, Policy, ResourceLimits
from tests.explain.probing import opened


def apply_grant(policy: Policy, grant: str) -> Policy:
    """The policy with what a grant says in addition."""
    call = ast.parse(grant, mode="eval").body
    assert isinstance(call, ast.Call)
    granted = eval(grant, {"Policy": Policy, "ResourceLimits": ResourceLimits})  # noqa: S307  # ours
    (field,) = [word.arg for word in call.keywords]
    assert field is not None
    value = getattr(granted, field)
    if field in {"reads", "writes"}:
        value = (*getattr(policy, field), *value)
    return dataclasses.replace(policy, **{field: value})


CASES: dict[str, tuple[dict[str, object], str]] = {
    "not shown of the system": ({}, "cat /etc/profile"),
    "not shown": ({}, "cat {top}/data/file"),
    "not shown to write": ({}, "touch {top}/data/new"),
    "not shown beside": ({"reads": ("data/sub",)}, "cat {top}/data/file"),
    "reads, a file": ({"reads": ("data",)}, "sh -c 'echo x >> {top}/data/sub/file'"),
    "reads, a new file": ({"reads": ("data",)}, "touch {top}/data/sub/new"),
    "reads, a new tree": ({"reads": ("data",)}, "mkdir -p {top}/data/sub/new/er"),
    "reads, removal": ({"reads": ("data",)}, "rm {top}/data/sub/file"),
    "reads, a move": ({"reads": ("data",)}, "mv {top}/data/sub/file {top}/data/sub/moved"),
    "reads in the workspace": ({"reads": ("ws/a/deep",)}, "touch a/deep/new"),
    "reads by another name": ({"reads": ("named",)}, "touch {top}/named/sub/new"),
    "protected": ({}, "git config --file .git/config user.name x"),
    "protected hook": ({}, "touch .git/hooks/post-commit"),
    "protected settings": ({}, "sh -c 'echo x > .vscode/tasks.json'"),
    "held": ({}, "mv .git/info .git/moved"),
    "by a symlink": ({}, "cat to-hidden"),
    "by two symlinks": ({"reads": ("data",)}, "cat to-data/to-hidden/file"),
    "a directory": ({}, "ls {top}/hidden"),
    "Python": ({}, "python3 -c 'open(\"{top}/data/file\").read()'"),
    "through /proc": ({}, "cat /proc/self/root{top}/data/file"),
    "open files": (
        {"limits": ResourceLimits(open_files=64)},
        "python3 -c 'x = [open(\"/dev/null\") for _ in range(100)]'",
    ),
}


HIDDEN = (
    "not shown", "not shown to write", "not shown beside", "by a symlink", "by two symlinks",
    "a directory", "Python", "through /proc",
)  # fmt: skip
"""Cases with files in /tmp, of which root's commands see only what leads to the workspace. An ordinary
user's could make them themselves, so that they are missing is no denial."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.root] * (name in HIDDEN)) for name in CASES]
)
async def test_grant_allows_it(top: Path, name: str) -> None:
    fields, command = CASES[name]
    values: dict[str, object] = {**fields}
    if isinstance(named := values.get("reads"), tuple):
        values["reads"] = tuple(os.path.join(top, path) for path in named)
    policy, command = Policy(**values), command.format(top=top)  # type: ignore[arg-type]
    async with opened(top / "ws", policy) as session:
        refused = await session.exec(command)
    assert refused.exit_code != 0
    (denial,) = refused.denials
    assert denial.grant is not None
    async with opened(top / "ws", apply_grant(policy, denial.grant)) as session:
        allowed = await session.exec(command)
    assert (allowed.exit_code, allowed.denials) == (0, ()), (denial.grant, allowed.stderr)


@pytest.mark.root
async def test_grant_is_least(top: Path) -> None:
    policy = Policy(reads=(f"{top}/data",))
    async with opened(top / "ws", policy) as session:
        told = {
            path: (await session.why(f"{top}/{path}")).grant
            for path in (
                "data", "data/sub/file", "data/sub/new", "data/sub/no/such", "hidden/file",
                "hidden", "ws/a", "ws/.git/config", "ws/.vscode",
            )
        }  # fmt: skip
    kept = Policy().protect
    assert told == {
        "data": f"Policy(writes=('{top}/data',))",
        "data/sub/file": f"Policy(writes=('{top}/data/sub/file',))",
        "data/sub/new": f"Policy(writes=('{top}/data/sub',))",
        "data/sub/no/such": f"Policy(writes=('{top}/data/sub',))",
        "hidden/file": f"Policy(reads=('{top}/hidden/file',))",
        "hidden": f"Policy(reads=('{top}/hidden',))",
        "ws/a": None,
        "ws/.git/config": f"Policy(protect={tuple(name for name in kept if name != '.git')!r})",
        "ws/.vscode": f"Policy(protect={tuple(name for name in kept if name != '.vscode')!r})",
    }


@pytest.mark.root
async def test_nothing_to_grant(top: Path) -> None:
    os.mkfifo(top / "pipe")
    (top / "kept").write_text("x")
    (top / "kept").chmod(0o400)
    async with opened(top / "ws", Policy(reads=(f"{top}/kept",))) as session:

        async def told(path: object) -> Explanation:
            return await session.why(f"{top}/{path}")

        assert (await told("missing")).grant is None
        assert "nothing of this name on this machine" in (await told("missing")).rule
        assert "only files and directories" in (await told("pipe")).rule
        assert (await told("kept")).grant is None  # its mode forbids writing
        for path in ("/usr/bin/env", "/etc/passwd", "/dev/mem", "/proc/kcore", "/home", "/etc"):
            assert (await session.why(path)).grant is None, path


@pytest.mark.root
async def test_denials_tell_nothing(top: Path) -> None:
    async with opened(top / "ws", Policy()) as session:
        result = await session.exec(f"cat {top}/hidden/file {top}/hidden/none")
    there, missing = result.denials
    assert isinstance(there, Denial)
    assert (there.rule, there.error) == (missing.rule, missing.error)
    assert missing.grant == f"Policy(reads=('{top}/hidden/none',))"
