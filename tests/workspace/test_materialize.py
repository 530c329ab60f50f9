"""Manifests made real: the plan as a whole value, and what then stands on the disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path
from threading import Event

import pytest

from sandyard.errors import (
    InvalidManifestPathError,
    LocalChecksumError,
    LocalDirReadError,
    LocalFileReadError,
    ManifestError,
    SandboxError,
    WorkspaceArchiveWriteError,
)
from sandyard.manifest import (
    Archive,
    BaseEntry,
    Dir,
    File,
    LocalDir,
    LocalFile,
    Manifest,
    SandboxPathGrant,
)
from sandyard.types import Group, Permissions, User
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.copying import Abandoned, Materialized, Skipped
from sandyard.workspace.entry_plan import (
    CopyFile,
    CopyTree,
    MakeDirectory,
    SetMode,
    WriteFile,
    in_waves,
    plan_entries,
)
from sandyard.workspace.materialize import Attempt, apply_manifest
from tests.archive.making import item, tar_of

READ_ONLY = Permissions(owner=5, group=5, other=0)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- the plan ---------------------------------------------------------------------------------


def test_the_whole_plan() -> None:
    manifest = Manifest(
        entries={
            "d": Dir(
                permissions=READ_ONLY,
                children={"f": File(content="x"), "e": Dir(), "g": LocalFile(src="s")},
            ),
            "copy": LocalDir(src="t", permissions=READ_ONLY),
            "empty": LocalDir(),
            ".": Dir(permissions=READ_ONLY),
        }
    )
    assert plan_entries(manifest) == (
        MakeDirectory("d"),
        WriteFile("d/f", b"x", 0o755),
        MakeDirectory("d/e"),
        CopyFile("d/g", Path("s"), None),
        CopyTree("copy", Path("t"), 0o550),
        MakeDirectory("empty"),
        MakeDirectory("."),
        SetMode("empty", 0o755),
        SetMode("d/e", 0o755),
        SetMode("d", 0o550),
    )


def test_what_can_not_be_planned() -> None:
    with pytest.raises(ManifestError, match="name it in the manifest's groups") as caught:
        plan_entries(Manifest(entries={"a": Dir(group=Group(name="g", users=[]))}))
    with pytest.raises(ManifestError, match="name it in the manifest's users"):
        plan_entries(Manifest(entries={"a": Dir(owner=User(name="u"))}))
    agent = Dir(owner=User(name="agent"), group=User(name="agent"))
    assert plan_entries(Manifest(entries={"a": agent})) == plan_entries(
        Manifest(entries={"a": Dir()})
    )
    assert caught.value.context == {"field": "group", "entry": "a"}
    with pytest.raises(ManifestError, match="can't make"):
        plan_entries(Manifest(entries={"a": BaseEntry(type="odd")}))


# --- files and directories --------------------------------------------------------------------


def test_files_and_directories(root: WorkspaceRoot, base: Path) -> None:
    manifest = Manifest(
        entries={
            "a/b/text": File(content="héllo"),
            "binary": File(content=b"\xff\0", permissions=Permissions(owner=6)),
            "shut": Dir(permissions=READ_ONLY, children={"in": File(content="")}),
            "odd\n\\name": File(content=""),
            ".": Dir(permissions=Permissions(owner=1)),
        }
    )
    before = _mode(base)
    for _ in range(2):
        done = apply_manifest(root, manifest)
        assert done == Materialized(("a/b/text", "binary", "shut/in", "odd\n\\name"), ())
        assert (base / "a/b/text").read_bytes() == "héllo".encode()
        assert (base / "binary").read_bytes() == b"\xff\0"
        assert {path.name: _mode(path) for path in base.iterdir() if path.name != "a"} == {
            "binary": 0o600,
            "shut": 0o550,
            "odd\n\\name": 0o755,
        }
    assert _mode(base) == before


def test_without_a_working_directory(
    root: WorkspaceRoot, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    apply_manifest(root, Manifest(entries={"made": File(content=b"x")}))
    assert (base / "made").read_bytes() == b"x"
    for src in ("given", "/etc/hostname"):
        with pytest.raises(LocalFileReadError, match="working directory"):
            apply_manifest(root, Manifest(entries={"copied": LocalFile(src=Path(src))}))


def test_applying_again_replaces_and_leaves_the_rest(root: WorkspaceRoot, base: Path) -> None:
    manifest = Manifest(entries={"d": Dir(children={"f": File(content="new")})})
    (base / "d").mkdir()
    (base / "d/f").write_text("old")
    (base / "d/other").write_text("mine")
    apply_manifest(root, manifest)
    assert (base / "d/f").read_text() == "new"
    assert (base / "d/other").read_text() == "mine"


@pytest.mark.parametrize(
    ("found", "entry", "kind"),
    [
        ("directory", File(content=""), WorkspaceArchiveWriteError),
        ("fifo", File(content=""), WorkspaceArchiveWriteError),
        ("file", Dir(), WorkspaceArchiveWriteError),
        ("out", File(content=""), InvalidManifestPathError),
        ("out", Dir(), InvalidManifestPathError),
        ("out", Dir(children={"secret": File(content="")}), InvalidManifestPathError),
    ],
)
def test_failures_name_the_entry(
    root: WorkspaceRoot,
    base: Path,
    bait: Path,
    found: str,
    entry: BaseEntry,
    kind: type[SandboxError],
) -> None:
    (base / "directory").mkdir()
    (base / "file").touch()
    (base / "out").symlink_to(bait)
    os.mkfifo(base / "fifo")
    with pytest.raises(kind) as caught:
        apply_manifest(root, Manifest(entries={"first": File(content=""), found: entry}))
    assert str(caught.value.context["entry"]).startswith(found)
    assert (base / "first").exists()


def test_nothing_is_written_if_the_plan_is_impossible(root: WorkspaceRoot, base: Path) -> None:
    manifest = Manifest(entries={"a": File(content="")})
    manifest.entries["../b"] = File(content="")
    with pytest.raises(InvalidManifestPathError):
        apply_manifest(root, manifest)
    assert list(base.iterdir()) == []


# --- copies -----------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A source tree with everything in it that a copy may meet."""
    top = tmp_path / "project"
    (top / "lib/empty").mkdir(parents=True)
    (top / "run.sh").write_bytes(b"#!/bin/sh\n")
    (top / "run.sh").chmod(0o755)
    (top / "lib/secret").write_bytes(b"\xff\0" * 300_000)
    (top / "lib/secret").chmod(0o600)
    (top / "lib/set-id").touch()
    (top / "lib/set-id").chmod(0o4755)
    (top / "link").symlink_to("lib/secret")
    (top / "lib/up").symlink_to("../run.sh")
    (top / "lib/dangling").symlink_to("/nowhere/at/all")
    (top / "lib/to-dir").symlink_to("empty")
    os.mkfifo(top / "pipe")
    Path(os.fsdecode(os.fsencode(top) + b"/odd\xff\n")).touch()
    for path in [*top.rglob("*"), top]:
        if not path.is_symlink() or os.utime in os.supports_follow_symlinks:
            os.utime(path, ns=(10**18 + 1, 10**18 + 123_456_789), follow_symlinks=False)
    (top / "lib/empty").chmod(0o500)
    (top / "lib").chmod(0o550)
    return top


def _facts(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *top.rglob("*")]:
        facts = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        elif not path.is_dir():
            continue
        mode = stat.S_IFMT(facts.st_mode) | (facts.st_mode & 0o777)
        found[os.fspath(path.relative_to(top))] = (mode, facts.st_mtime_ns, content)
    return found


def test_a_directory_is_copied_exactly(root: WorkspaceRoot, base: Path, project: Path) -> None:
    manifest = Manifest(entries={"p/q": LocalDir(src="project")})
    for _ in range(2):
        done = apply_manifest(root, manifest, base_dir=str(project.parent))
        assert _facts(base / "p/q") == _facts(project)
        assert done.skipped == (Skipped("p/q/pipe", "fifo"),)
        assert len(done.written) == 8
        assert not (base / "p/q/lib/set-id").stat().st_mode & stat.S_ISUID


def test_a_copy_into_the_root_itself(root: WorkspaceRoot, base: Path, project: Path) -> None:
    before = _mode(base)
    apply_manifest(root, Manifest(entries={".": LocalDir(src=project)}), base_dir=str(project))
    assert (base / "run.sh").exists()
    assert _mode(base) == before


def test_chosen_permissions_are_for_the_top(root: WorkspaceRoot, base: Path, project: Path) -> None:
    entries = {
        "d": LocalDir(src=project, permissions=Permissions(owner=7, group=7)),
        "f": LocalFile(src=project / "run.sh", permissions=Permissions(owner=4)),
        "g": LocalFile(src=project / "run.sh"),
    }
    done = apply_manifest(root, Manifest(entries=entries), base_dir=str(project.parent))
    assert (_mode(base / "d"), _mode(base / "d/run.sh")) == (0o770, 0o755)
    assert (_mode(base / "f"), _mode(base / "g")) == (0o400, 0o755)
    assert (base / "g").stat().st_mtime_ns == (project / "run.sh").stat().st_mtime_ns
    assert done.written[-2:] == ("f", "g")


def test_the_working_directory_is_the_base(
    root: WorkspaceRoot, base: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    apply_manifest(root, Manifest(entries={"x": LocalFile(src="run.sh")}))
    assert (base / "x").exists()


@pytest.mark.parametrize("kind", ["file", "dir"])
def test_sources_outside_need_a_grant(
    root: WorkspaceRoot, base: Path, project: Path, kind: str
) -> None:
    outside = project / "run.sh" if kind == "file" else project / "lib"
    entry = LocalFile(src=outside) if kind == "file" else LocalDir(src=outside)
    error = LocalFileReadError if kind == "file" else LocalDirReadError
    for src_base in (base, project / "li", f"{project}-evil"):
        with pytest.raises(error, match="SandboxPathGrant") as caught:
            apply_manifest(root, Manifest(entries={"x": entry}), base_dir=str(src_base))
        assert caught.value.context["reason"] == "outside_base_dir"
        assert caught.value.context["entry"] == "x"
    for grant in (
        SandboxPathGrant(path=str(project)),
        SandboxPathGrant(path="/inside", host_path=str(project)),
    ):
        manifest = Manifest(entries={"x": entry}, extra_path_grants=[grant])
        apply_manifest(root, manifest, base_dir=str(base))
    assert (base / "x").exists()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (LocalFile(src="nope"), "path_not_found"),
        (LocalDir(src="nope"), "path_not_found"),
        (LocalFile(src="link"), "symlink_not_supported"),
        (LocalFile(src="to-lib/up"), "symlink_not_supported"),
        (LocalFile(src="to-lib/secret"), "symlink_not_supported"),
        (LocalDir(src="to-lib"), "symlink_not_supported"),
        (LocalDir(src="to-lib/empty"), "symlink_not_supported"),
        (LocalFile(src="lib"), "not_a_regular_file"),
        (LocalFile(src="pipe"), "not_a_regular_file"),
        (LocalDir(src="run.sh"), "enotdir"),
        (LocalFile(src="../bait/secret"), "outside_base_dir"),
        (LocalFile(src="lib/../../bait/secret"), "outside_base_dir"),
    ],
)
def test_sources_that_are_refused(
    root: WorkspaceRoot, base: Path, project: Path, entry: BaseEntry, reason: str
) -> None:
    (project / "to-lib").symlink_to("lib")
    kind = LocalFileReadError if isinstance(entry, LocalFile) else LocalDirReadError
    with pytest.raises(kind) as caught:
        apply_manifest(root, Manifest(entries={"x": entry}), base_dir=str(project))
    assert caught.value.context["reason"] == reason
    assert list(base.iterdir()) == []


def test_links_in_the_target_are_not_followed_by_a_copy(
    root: WorkspaceRoot, base: Path, bait: Path, project: Path
) -> None:
    (base / "p").mkdir()
    (base / "p/lib").symlink_to(bait)
    (base / "p/run.sh").symlink_to(bait / "secret")
    with pytest.raises(SandboxError):
        apply_manifest(root, Manifest(entries={"p": LocalDir(src=project)}), base_dir=str(project))


def test_too_deep_a_tree(root: WorkspaceRoot, tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    Path(deep, *["d"] * 201).mkdir(parents=True)
    with pytest.raises(LocalDirReadError) as caught:
        apply_manifest(root, Manifest(entries={"x": LocalDir(src=deep)}), base_dir=str(tmp_path))
    assert caught.value.context["reason"] == "too_deep"


def test_large_files_are_copied_by_the_kernel(
    root: WorkspaceRoot, base: Path, tmp_path: Path
) -> None:
    source = tmp_path / "big"
    source.write_bytes(os.urandom(1000) * 2000)
    manifest = Manifest(entries={"big": LocalFile(src=source)})
    apply_manifest(root, manifest, base_dir=str(tmp_path))
    assert (base / "big").read_bytes() == source.read_bytes()


@pytest.mark.root
def test_everything_belongs_to_the_roots_owner(
    root: WorkspaceRoot, base: Path, project: Path
) -> None:
    os.chown(base, 12345, 23456)
    entries = {"p": LocalDir(src=project), "d/f": File(content=""), "e": Dir()}
    apply_manifest(root, Manifest(entries=entries), base_dir=str(project))
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in base.rglob("*")}
    assert owners == {(12345, 23456)}


def test_copy_of_what_is_around_it_ends(tmp_path: Path, root: WorkspaceRoot) -> None:
    around = Path(root.path).parent
    (around / "beside").mkdir(exist_ok=True)
    manifest = Manifest(entries={"all": LocalDir(src=around)})
    done = apply_manifest(root, manifest, base_dir=str(around))
    assert Skipped(f"all/{Path(root.path).name}", "the workspace itself") in done.skipped
    assert sorted(entry.name for entry in (Path(root.path) / "all").iterdir()) == sorted(
        entry.name for entry in around.iterdir() if str(entry) != root.path
    )


# --- what is meant of a tree, links, archives ---------------------------------------------------


def test_waves_keep_what_must_be_in_order() -> None:
    tree, inner, other = LocalDir(src="t"), File(content="1"), File(content="2")
    entries = {"a/x": inner, "a": tree, "a/y/z": other, "b": Dir(children={"c": inner}), "d": other}
    waves = in_waves(plan_entries(Manifest(entries=entries)))
    assert [[step.path for step in wave] for wave in waves] == [
        ["a/x", "b", "d"],
        ["a", "b/c"],
        ["a/y/z", "b"],
    ]
    everything = in_waves(plan_entries(Manifest(entries={"x": inner, ".": tree, "y": inner})))
    assert [[step.path for step in wave] for wave in everything] == [["x"], ["."], ["y"]]


def test_what_is_left_out_is_told(root: WorkspaceRoot, base: Path, tmp_path: Path) -> None:
    top = tmp_path / "project"
    for name in (
        "a.py",
        "a.pyc",
        "keep.pyc",
        "doc/b.md",
        "doc/c.pyc",
        "build/x",
        "deep/build/y.py",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / ".gitignore").write_text("*.pyc\n!keep.pyc\n/build/\n")
    (top / "deep/.gitignore").write_text("build\n")

    def done(entry: LocalDir) -> tuple[set[str], set[Skipped]]:
        manifest = Manifest(entries={"p": entry})
        with WorkspaceRoot.open(base) as again:
            found = apply_manifest(again, manifest, base_dir=str(tmp_path))
        there = {str(path.relative_to(base / "p")) for path in (base / "p").rglob("*")}
        shutil.rmtree(base / "p")
        return there, set(found.skipped)

    there, skipped = done(LocalDir(src=top, gitignore=True))
    assert there == {".gitignore", "a.py", "keep.pyc", "doc", "doc/b.md", "deep", "deep/.gitignore"}
    assert skipped == {
        Skipped(f"p/{name}", "gitignore") for name in ("a.pyc", "doc/c.pyc", "build", "deep/build")
    }
    there, skipped = done(LocalDir(src=top, include=["*.py", "/doc"], exclude=["c.*"]))
    assert there == {"a.py", "doc", "doc/b.md", "deep", "deep/build", "deep/build/y.py"}
    assert Skipped("p/doc/c.pyc", "excluded") in skipped
    assert Skipped("p/build/x", "not_included") in skipped
    assert done(LocalDir(src=top, include=["nothing"]))[0] == set()


@pytest.mark.parametrize("direct", [True, False])
def test_hard_links_stay_links(
    root: WorkspaceRoot, base: Path, tmp_path: Path, *, direct: bool
) -> None:
    top = tmp_path / "project"
    (top / "d").mkdir(parents=True)
    (top / "d/one").write_text("x")
    (top / "d/one").chmod(0o640)
    os.link(top / "d/one", top / "two")
    os.link(top / "d/one", tmp_path / "outside")
    manifest = Manifest(entries={"p": LocalDir(src=top)})
    for _ in range(2):
        apply_manifest(root, manifest, base_dir=str(tmp_path), attempt=Attempt(direct=direct))
        facts = (base / "p/d/one").stat()
        assert (base / "p/two").stat().st_ino == facts.st_ino
        assert (facts.st_nlink, facts.st_mode & 0o777) == (2, 0o640)
        assert sorted(path.name for path in (base / "p").rglob("*")) == ["d", "one", "two"]


def test_written_directly_it_is_the_same(
    root: WorkspaceRoot, base: Path, project: Path, tmp_path: Path
) -> None:
    entries = {
        "p": LocalDir(src=project),
        "d": Dir(children={str(number): File(content=b"x" * number) for number in range(200)}),
        "e/f": File(content="again", permissions=Permissions(owner=6)),
        "e/g": File(content="link", permissions=Permissions(owner=6)),
    }
    (base / "e").mkdir()
    (base / "e/f").write_text("was there before")
    (base / "e/g").symlink_to("target")
    attempt = Attempt(direct=True)
    done = apply_manifest(root, Manifest(entries=entries), base_dir=str(tmp_path), attempt=attempt)
    assert _facts(base / "p") == _facts(project)
    assert len(done.written) == 8 + 200 + 2
    assert {int(path.name): path.stat().st_size for path in (base / "d").iterdir()} == {
        number: number for number in range(200)
    }
    assert (base / "e/f").read_text() == "again"
    assert (base / "e/target").read_text() == "link"
    assert (_mode(base / "e/f"), _mode(base / "d/6")) == (0o600, 0o755)
    assert attempt.ledger.missing(plan_entries(Manifest(entries=entries))) == ()


def test_archives(root: WorkspaceRoot, base: Path, project: Path, tmp_path: Path) -> None:
    (project / "pipe").unlink()
    archive = tmp_path / "x.tgz"
    subprocess.run(["tar", "-czf", archive, "-C", project, "run.sh", "lib/up"], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    entries = {
        "a": Archive(src=archive, sha256=digest.upper(), permissions=Permissions(owner=7)),
        "b/c": Archive(src=archive),
    }
    apply_manifest(root, Manifest(entries=entries), base_dir=str(tmp_path))
    for where in ("a", "b/c"):
        assert (base / where / "run.sh").read_bytes() == b"#!/bin/sh\n"
        assert (base / where / "lib/up").is_symlink()
    assert _mode(base / "a") == 0o700
    shutil.rmtree(base / "a")
    wrong = Manifest(entries={"a": Archive(src=archive, sha256="0" * 64)})
    with pytest.raises(LocalChecksumError, match="nothing of it was unpacked") as caught:
        apply_manifest(root, wrong, base_dir=str(tmp_path))
    assert caught.value.context["entry"] == "a"
    assert caught.value.context["actual"] == digest
    assert not list(base.rglob(".sandyard-*"))
    (tmp_path / "evil.tar").write_bytes(tar_of(item("../evil", b"x")))
    evil = Manifest(entries={"e": Archive(src=tmp_path / "evil.tar")})
    with pytest.raises(WorkspaceArchiveWriteError) as refused:
        apply_manifest(root, evil, base_dir=str(tmp_path))
    assert refused.value.context["entry"] == "e"
    assert not (base / "evil").exists()


def test_what_is_stopped_is_not_gone_on_with(root: WorkspaceRoot, base: Path) -> None:
    stopped = Event()
    stopped.set()
    with pytest.raises(Abandoned):
        apply_manifest(
            root, Manifest(entries={"a": File(content="")}), attempt=Attempt(stopped=stopped)
        )
    assert list(base.iterdir()) == []
