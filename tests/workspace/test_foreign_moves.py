"""What a rule closes stays as it is, whoever moves what lies around it to where the host is at work."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from sandyard.archive.report import Tally
from sandyard.errors import PolicyDeniedError, SandboxError
from sandyard.workspace import WorkspaceRoot, copying
from sandyard.workspace.changing import copy
from sandyard.workspace.extract import hydrate_workspace
from sandyard.workspace.listing import normalize
from sandyard.workspace.persist import Saving
from sandyard.workspace.placing import Target
from sandyard.workspace.ward import Rule, Ward
from tests.archive.making import Entry, directory, hard_link, item, tar_of

BIG = item("big", os.urandom(2_000_000))


class Trap(io.BytesIO):
    """An archive; somebody inside does something while it is read."""

    def __init__(self, data: bytes, spring: Callable[[], None]) -> None:
        super().__init__(data)
        self._spring = spring
        self._pieces = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on, and at the fourth piece spring."""
        self._pieces += 1
        if self._pieces == 4:
            self._spring()
        return super().read(size)


def rule(kind: str, path: Path) -> Rule:
    """A rule about what stands at a path."""
    facts = path.lstat()
    return Rule(kind, str(path), (facts.st_dev, facts.st_ino))  # type: ignore[arg-type]  # as text


@pytest.fixture
def project(root: WorkspaceRoot, base: Path) -> Path:
    """A directory that anybody may move, with things in it that have rules."""
    path = base / "project"
    (path / ".git/hooks").mkdir(parents=True)
    (path / ".git/config").write_text("safe")
    (path / ".env").write_text("secret")
    rules = (
        Rule("write", root.inside, root.inode),
        rule("hold", path / ".git"),
        rule("protect", path / ".git/hooks"),
        rule("protect", path / ".git/config"),
        rule("deny", path / ".env"),
    )
    root.govern(Ward(rules), ())
    return path


def found(base: Path, name: str) -> list[Path]:
    """Where things of a name are."""
    return [path for path in base.rglob("*") if path.name == name]


def moved_into_stage(base: Path, project: Path) -> None:
    """Put the project in the place of a directory that was just unpacked."""
    (place,) = base.glob(".sandyard-*.stage/new/x")
    place.rmdir()
    project.rename(place)


@pytest.mark.parametrize(
    "member", [hard_link("leak", "x/.env"), item("x/.git/hooks/pre-commit", b"evil")]
)
def test_nothing_is_unpacked_into_it(
    root: WorkspaceRoot, base: Path, project: Path, member: Entry
) -> None:
    data = tar_of(directory("x"), BIG, member)
    archive = Trap(data, lambda: moved_into_stage(base, project))
    with pytest.raises(PolicyDeniedError):
        hydrate_workspace(root, archive, None, Event())
    assert not found(base, "leak")
    assert not found(base, "pre-commit")


def test_it_is_not_removed_with_the_stage(root: WorkspaceRoot, base: Path, project: Path) -> None:
    data = tar_of(directory("x"), BIG, item("/refused"))
    archive = Trap(data, lambda: moved_into_stage(base, project))
    with pytest.raises(SandboxError):
        hydrate_workspace(root, archive, None, Event())
    assert [path.read_text() for path in found(base, ".env")] == ["secret"]
    assert [path.read_text() for path in found(base, "config")] == ["safe"]


def test_nothing_is_published_into_it(
    root: WorkspaceRoot, base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "a/.git").mkdir(parents=True)
    (base / "a/.git/config").write_text("mine")

    class Swapping(Ward):
        def check_itself(self, directory: int, name: str) -> None:
            super().check_itself(directory, name)
            if project.exists() and name == "config":
                (base / "a").rename(base / "b")
                project.rename(base / "a")

    known = (rule("protect", project / ".git/config"), Rule("write", root.inside, root.inode))
    root.govern(Swapping(known), ())
    monkeypatch.setattr("sandyard.workspace.extract_tree.OPEN_DIRECTORIES", 1)
    with pytest.raises(SandboxError):
        hydrate_workspace(root, tar_of(item("a/.git/config", b"evil")), None, Event())
    assert (base / "a/.git/config").read_text() == "safe"


def test_nothing_is_copied_into_it(
    root: WorkspaceRoot, base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "src/x/.git").mkdir(parents=True)
    (base / "src/x/.git/config").write_text("evil")
    (base / "src/a").write_text("first")
    real = copying.copy_file

    def copied(source: int, target: Target, *rest: object) -> None:
        if target.name == "a":
            (staged,) = base.glob(".sandyard-*.tmp")
            project.rename(staged / "x")
        real(source, target, *rest)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr("sandyard.workspace.copying_trees.copy_file", copied)
    with pytest.raises(PolicyDeniedError):
        copy(root, "src", "dst", recursive=True)
    kept = {path.read_text() for path in found(base, "config") if "src" not in path.parts}
    assert kept == {"safe"}
    assert [path.read_text() for path in found(base, ".env")] == ["secret"]


def test_nothing_of_it_is_saved(
    base: Path, root: WorkspaceRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for top in ("a", "project"):
        (base / top / "keys/0").mkdir(parents=True)
        (base / top / "keys/key").write_text(f"of {top}")
    ward = Ward((rule("deny", base / "project/keys"), Rule("write", root.inside, root.inode)))
    monkeypatch.setattr("sandyard.workspace.extract_tree.OPEN_DIRECTORIES", 1)
    saved: list[bytes] = []

    class Swapping(Tally):
        def count(self, kind: object, size: int = 0) -> None:
            super().count(kind, size)  # type: ignore[arg-type]  # passed on
            if (base / "project").exists() and self.report().directories == 3:  # in a/keys/0
                (base / "a").rename(base / "b")
                (base / "project").rename(base / "a")

    Saving(root.fd, saved.append, frozenset(), Swapping(), ward).run()
    assert b"of project" not in b"".join(saved)


def test_a_denied_file_is_nowhere(root: WorkspaceRoot, project: Path) -> None:
    assert normalize(root, "project/.git") == project / ".git"
    with pytest.raises(PolicyDeniedError):
        normalize(root, "project/.env")
