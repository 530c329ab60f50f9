"""Planted files and repositories: what stays as it was, what still works, and what a review tells."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandyard import Manifest, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

SETTINGS = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main")
IDENTITY = "git config --global user.name n; git config --global user.email n@example.org"


def git(at: Path, *words: str) -> None:
    subprocess.run(["git", *SETTINGS, *words], cwd=at, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a hook, a submodule, a linked worktree and an editor's settings."""
    library, made = tmp_path / "library", tmp_path / "project"
    for at in (library, made):
        at.mkdir()
        git(at, "init", "-q")
        (at / "file").write_text("x\n")
        git(at, "add", ".")
        git(at, "commit", "-qm", "first")
    git(made, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library), "lib")
    git(made, "commit", "-qm", "library")
    git(made, "worktree", "add", "-q", "linked")
    (made / ".git/info/attributes").write_text("* text\n")
    (made / ".vscode").mkdir()
    (made / ".vscode/tasks.json").write_text("{}")
    return made


@asynccontextmanager
async def opened(
    root: Path, policy: Policy | None = None
) -> AsyncIterator[UnixLocalSandboxSession]:
    client = UnixLocalSandboxClient(policy=policy)
    session = await client.create(manifest=Manifest(root=str(root)))
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


REASONS = (b"Read-only file system", b"Device or resource busy", b"Invalid cross-device link")
ATTACKS = [
    "echo evil > .git/hooks/pre-commit",
    "echo evil >> .git/config",
    "git config core.fsmonitor evil",
    "echo '* filter=evil' > .git/info/attributes",
    "mv .git/info .git/away",
    "mv .git away",
    "mv .git/hooks .git/away",
    "ln -f file .git/config",
    "mv file .git/config",
    "rm -rf .git/hooks",
    "echo evil >> .git/modules/lib/config",
    "mv .git/modules/lib .git/modules/away",
    "mv .git/modules .git/away",
    "echo evil > .git/modules/lib/hooks/post-checkout",
    "echo 'gitdir: /tmp/evil' > lib/.git",
    "mv file lib/.git",
    "echo ../../evil > .git/worktrees/linked/commondir",
    "mv .git/worktrees .git/away",
    "echo evil > .vscode/tasks.json",
    "mv .vscode away",
]


def succeeds_unconfined(project: Path, attack: str) -> bool:
    """Whether an attack works in a copy that nothing protects."""
    control = project.parent / "control"
    shutil.copytree(project, control, symlinks=True)
    done = subprocess.run(["sh", "-c", attack], cwd=control, capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attack_is_refused(project: Path, attack: str) -> None:
    assert succeeds_unconfined(project, attack)
    before = {path: path.read_bytes() for path in (project / ".git").rglob("config")}
    async with opened(project) as session:
        result = await session.exec(attack)
        assert result.exit_code != 0, attack
        assert any(reason in result.stderr for reason in REASONS), result.stderr
        review = await session.review()
    assert review.findings == ()
    assert {path: path.read_bytes() for path in (project / ".git").rglob("config")} == before


async def test_git_works(project: Path) -> None:
    script = f"""
set -e
{IDENTITY}
echo y >> file; git commit -qam second
git branch side; git switch -q side; git stash list
echo z > new; git add new; git stash -q; git stash pop -q; git commit -qm third
git merge -q main 2>/dev/null || true
git -C linked commit -q --allow-empty -m linked
git -C lib commit -q --allow-empty -m library
git worktree add -q /tmp/other; git worktree list | wc -l
git fetch -q . main; git tag v1; git gc -q; git fsck >/dev/null
"""
    async with opened(project) as session:
        result = await session.exec(script)
        assert (result.exit_code, result.stdout) == (0, b"3\n"), result.stderr
        assert (await session.review()).findings == ()


async def test_lifting(project: Path) -> None:
    async with opened(project, Policy(protect=())) as session:
        result = await session.exec(
            "git config core.fsmonitor evil && echo evil > .git/hooks/pre-commit && "
            "echo evil > .vscode/tasks.json"
        )
        assert result.exit_code == 0, result.stderr
        review = await session.review()
    told = {(found.path.removeprefix(f"{project}/"), found.kind) for found in review.findings}
    assert told == {
        (".git/config", "configuration"),
        (".git/hooks/pre-commit", "hook"),
        (".vscode/tasks.json", "planted"),
    }
    (config,) = (found for found in review.findings if found.kind == "configuration")
    assert "core.fsmonitor=evil" in config.detail


async def test_what_appears_is_told(tmp_path: Path) -> None:
    root = tmp_path / "work"
    root.mkdir()
    script = """
git init -q new; git -C new config core.sshCommand evil; echo x > new/.git/hooks/post-merge
git init -q --bare deep/er/bare; git -C deep/er/bare config core.hooksPath /tmp
mkdir -p a/b/.claude; echo '{}' > a/b/.claude/settings.json; echo x > .envrc; ln -s /tmp .vscode
echo nothing > notes
"""
    async with opened(root) as session:
        assert (await session.review()).findings == ()
        result = await session.exec(script)
        assert result.exit_code == 0, result.stderr
        review = await session.review()
    told = {(found.path.removeprefix(f"{root}/"), found.kind) for found in review.findings}
    assert {
        ("new", "repository"),
        ("new/.git/hooks/post-merge", "hook"),
        ("new/.git/config", "configuration"),
        ("deep/er/bare", "repository"),
        ("a/b/.claude/settings.json", "planted"),
        (".envrc", "planted"),
        (".vscode", "planted"),
    } <= told
    assert not any("notes" in path for path, _ in told)
    assert review.complete


async def test_nothing_is_created(tmp_path: Path) -> None:
    root = tmp_path / "work"
    (root / "sub").mkdir(parents=True)
    policy = Policy(protect=(".git", "Makefile", "sub/ci", ".mcp.json"))
    async with opened(root, policy) as session:
        assert (await session.exec("ls -A . sub")).stdout == b".:\nsub\n\nsub:\n"
    assert sorted(path.name for path in root.rglob("*")) == ["sub"]


async def test_own_names(tmp_path: Path) -> None:
    root = tmp_path / "work"
    for name in ("Makefile", "sub/Makefile", "sub/ci/x", "other/ci/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("kept")
    async with opened(root, Policy(protect=("Makefile", "sub/ci"))) as session:
        for name, refused in (
            ("Makefile", True),
            ("sub/Makefile", True),
            ("sub/ci/x", True),
            ("other/ci/x", False),
        ):
            result = await session.exec(f"echo changed > {name}")
            assert (result.exit_code != 0) == refused, name


async def test_granted_trees_too(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "work"
    root.mkdir()
    async with opened(root, Policy(writes=(str(project),))) as session:
        assert (await session.exec(f"echo x > {project}/.git/hooks/pre-commit")).exit_code != 0
        assert (await session.exec(f"echo x > {project}/file")).exit_code == 0


async def test_outside_git_directory(project: Path) -> None:
    # Only the linked worktree is the workspace: its Git directory can't be written to.
    async with opened(project / "linked") as session:
        notes = (await session.review()).notes
        assert any("the policy's writes" in note for note in notes)
    async with opened(project / "linked", Policy(writes=(str(project / ".git"),))) as session:
        result = await session.exec(f"{IDENTITY}; git commit -q --allow-empty -m x")
        assert result.exit_code == 0, result.stderr
        assert (await session.exec(f"echo x >> {project}/.git/config")).exit_code != 0
        assert (await session.exec(f"mv {project}/.git/hooks {project}/.git/h")).exit_code != 0


async def test_symlinked_git_directory(project: Path) -> None:
    (project / ".git").rename(project / "real")
    (project / ".git").symlink_to("real")
    async with opened(project) as session:
        assert (await session.exec("echo x >> real/config")).exit_code != 0
        assert (await session.exec("echo x > real/hooks/pre-commit")).exit_code != 0
        notes = (await session.review()).notes
        assert any(".git is a symlink" in note for note in notes)


async def test_read_grant_stays_read_only(project: Path) -> None:
    policy = Policy(reads=(f"{project}/lib", f"{project}/.git"))
    async with opened(project, policy) as session:
        for attack in ("echo x > .git/HEAD", "echo x > .git/modules/lib/HEAD", "echo x > lib/.git"):
            assert (await session.exec(attack)).exit_code != 0, attack


async def test_exchange_from_outside_is_told(project: Path) -> None:
    async with opened(project) as session:
        (project / ".git/config").rename(project / "old")
        (project / ".git/config").write_text("[core]\n\tfsmonitor = evil\n")
        review = await session.review()
    assert [(found.kind, found.path) for found in review.findings] == [
        ("configuration", f"{project}/.git/config")
    ]


async def test_other_names_are_told(project: Path) -> None:
    (project / "other").hardlink_to(project / ".git/config")
    async with opened(project) as session:
        assert (
            await session.exec("printf '[core]\\n\\tfsmonitor = evil\\n' >> other")
        ).exit_code == 0
        review = await session.review()
    assert any(".git/config has other names" in note for note in review.notes)
    ((kind, detail),) = ((found.kind, found.detail) for found in review.findings)
    assert kind == "configuration"
    assert "core.fsmonitor=evil" in detail
