"""`sandyard snapshot`, `fork`, `resume`: what is saved of sessions that stay, and sessions made of it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sandyard.cli.app import make_app
from tests.cli.calling import call
from tests.supervisor.conftest import home

__all__ = ["home"]

REFUSED = 125

# Each test starts several programs, one after the other.
pytestmark = pytest.mark.timeout(240)


Verb = Callable[..., str]


def ran(*words: str) -> str:
    ended = call(*words)  # a program of its own: threads of its stdin end with it
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode()


@pytest.fixture
def done(home: Path, capfd: pytest.CaptureFixture[str]) -> Verb:
    """What a verb prints that ends as it should; it runs in this process, for there are many."""

    def run(*words: str, code: int = 0) -> str:
        ended = make_app([*words])([*words], standalone_mode=False)
        said, complaints = capfd.readouterr()
        assert ended == code, (words, said, complaints)
        return said if code != REFUSED else complaints

    return run


def test_snapshots_of_a_session(home: Path, done: Verb, tmp_path: Path) -> None:
    def objects(*words: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in done(*words, "--json").splitlines()]

    done("create", "--name", "web")
    making = "echo one > file; chmod 600 file; ln -s $PWD/file link; pwd"
    path = ran("exec", "web", "sh", "-c", making)
    first = done("snapshot", "create", "web", "--label", "first").strip()
    ran("exec", "web", "sh", "-c", "echo two > file; rm link; mkdir d")
    (second,) = objects("snapshot", "create", "web", "--tag", "good")
    assert [second[key] for key in ("history", "number", "tags")] == ["web", 2, ["good"]]
    assert [one["id"] for one in objects("snapshot", "list", "web")] == [first, second["id"]]
    heads, row, _ = done("snapshot", "list").splitlines()
    assert heads.split() == ["ID", "HISTORY", "CREATED", "FILES", "SIZE", "LABEL", "TAGS"]
    assert row.split()[:2] + row.split()[-1:] == [first, "web", "first"]
    assert "1 files (4 B), 0 directories, 1 symlinks" in done("snapshot", "show", first[:6])
    different = done("snapshot", "diff", "first", str(second["id"]), code=1)
    assert different == "- link\n+ d\n~ file\n! .\n"
    assert done("snapshot", "diff", "web", str(second["id"])) == ""

    done("fork", "web", "--name", "other")
    ran("exec", "other", "sh", "-c", "echo fork > file")
    assert ran("exec", "web", "--", "cat", "file") == "two\n"
    done("rm", "web")
    assert done("resume", "first", "--name", "again") == "again\n"
    said = ran("exec", "again", "sh", "-c", "pwd; cat link; stat -c %a file")
    assert said == f"{path}one\n600\n"  # web's path
    assert ran("exec", "other", "sh", "-c", "pwd; cat file") == f"{path}fork\n"
    done("rm", "--all")

    archive = tmp_path / "saved.tar"
    done("snapshot", "export", "first", str(archive))
    with tarfile.open(archive) as tar:
        assert sorted(tar.getnames()) == [".", "./file", "./link"]
    assert "File exists" in done("snapshot", "export", "first", str(archive), code=REFUSED)
    taken = done("snapshot", "import", "taken", str(archive)).strip()
    assert done("snapshot", "diff", first, taken) == ""
    assert done("snapshot", "verify").startswith("3 snapshots are whole")
    assert objects("snapshot", "compact")[0]["removed"] == []
    assert done("snapshot", "prune", "--keep", "1").startswith("0 snapshots")  # they have labels
    assert objects("snapshot", "rm", "first", taken)[0]["removed"] == [first, taken]
    assert "[snapshot_not_restorable]" in done("resume", "first", code=REFUSED)
    (pack,) = (home / "state/sandyard/store/packs").glob("*.pack")
    pack.write_bytes(b"\0" * pack.stat().st_size)
    assert "it harms snapshot" in done("snapshot", "verify", code=1)


def test_held_session_is_saved(home: Path, done: Verb) -> None:
    """Nothing changes while it is read, though something writes all the time."""
    done("create", "--name", "web")
    ran("exec", "-d", "web", "--", "sh", "-c", "while :; do echo x >> log; done")
    for _ in range(3):
        saved = done("snapshot", "create", "web", "--freeze").strip()
        assert "log" not in done("snapshot", "show", saved)
    size = ran("exec", "web", "--", "stat", "-c", "%s", "log")
    done("fork", "web", "--freeze", "--name", "other")
    assert int(ran("exec", "other", "--", "stat", "-c", "%s", "log")) > int(size)
    done("rm", "--all")


def test_looking_before_pruning_removes_nothing(home: Path, done: Verb) -> None:
    done("create", "--name", "web")
    saved = []
    for word in ("one", "two", "three"):
        ran("exec", "web", "--", "sh", "-c", f"echo {word} > file")
        saved.append(done("snapshot", "create", "web").strip())
    before = done("snapshot", "list")
    told = done("snapshot", "prune", "web", "--keep", "1", "--dry-run").splitlines()
    assert [line.split()[0] for line in told] == ["ID", *saved[:2]]
    would = done("snapshot", "prune", "--keep", "2", "--dry-run", "--json").splitlines()
    assert [json.loads(line)["id"] for line in would] == saved[:1]
    assert done("snapshot", "prune", "other", "--keep", "0", "--dry-run") == ""
    assert done("snapshot", "list") == before
    assert done("snapshot", "prune", "web", "--keep", "1").startswith("2 snapshots were removed")
    odd = call("snapshot", "prune", "--keep", "-1")
    assert b"--keep" in odd.stderr
    assert b"max_count" not in odd.stderr
    assert "OLD" in done("snapshot", "diff", "--help")
    done("rm", "--all")
