"""A layered tree stands, shows its layers, changes only the uppermost, and leaves nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandyard.errors import ConfinementUnavailableError
from sandyard.plan import Layer
from sandyard.process.late_wire import encode_layers
from sandyard.process.layering import LayeredTree
from sandyard.process.wire import Request
from sandyard.workspace.acting import acting_as
from sandyard.workspace.root import Owner
from tests.mounts.test_native import failure

USER = 12345


def layer(path: Path) -> Layer:
    facts = path.lstat()
    return Layer(str(path), (facts.st_dev, facts.st_ino))


@pytest.fixture
def changes(tmp_path: Path) -> Path:
    for name in ("upper", "work"):
        (tmp_path / "changes" / name).mkdir(parents=True)
    return tmp_path / "changes"


def test_uppermost_layer_wins(tmp_path: Path, changes: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/same").write_text(f"{number}")
        (tmp_path / f"{number}/own{number}").write_text("")
    lowers = tuple(layer(tmp_path / f"{number}") for number in range(12))
    mounts = Path("/proc/self/mountinfo").read_text()
    with LayeredTree.make(layer(changes), lowers) as tree:
        assert sorted(os.listdir(tree.top)) == sorted(["same", *(f"own{n}" for n in range(12))])
        ids = None if tree.lease is None else Owner(tree.lease.uid, tree.lease.uid)
        with acting_as(ids):
            same = os.open("same", os.O_RDWR, dir_fd=tree.top)
            assert os.read(same, 9) == b"0"
            os.write(same, b"!")
            os.close(same)
            os.unlink("own11", dir_fd=tree.top)
        shown = tree.show()
        assert os.fstat(shown).st_ino == os.fstat(tree.top).st_ino
        os.close(shown)
        assert Path("/proc/self/mountinfo").read_text() == mounts
    assert (changes / "upper/same").read_text() == "0!"
    assert (changes / "upper/same").stat().st_uid == os.geteuid()  # not the leased user's
    assert (tmp_path / "0/same").read_text() == "0"
    assert (tmp_path / "11/own11").exists()


def test_layer_that_was_swapped_is_refused(tmp_path: Path, changes: Path) -> None:
    (tmp_path / "base").mkdir()
    wanted = layer(tmp_path / "base")
    (tmp_path / "base").rename(tmp_path / "moved")
    (tmp_path / "base").symlink_to("moved")
    with pytest.raises(ConfinementUnavailableError) as caught:
        LayeredTree.make(layer(changes), (wanted,))
    assert caught.value.context["errno"] == errno.ELOOP
    (tmp_path / "base").unlink()
    (tmp_path / "base").mkdir()
    with pytest.raises(ConfinementUnavailableError) as caught:
        LayeredTree.make(layer(changes), (wanted,))
    assert caught.value.context["errno"] == errno.ESTALE


def test_place_that_can_take_no_changes(tmp_path: Path) -> None:
    """What the kernel refuses is told with a way out, and nothing is mounted instead."""
    (tmp_path / "base").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfinementUnavailableError) as caught:
        LayeredTree.make(layer(tmp_path / "empty"), (layer(tmp_path / "base"),))
    assert caught.value.context["step"] == "late_make"
    assert "XDG_STATE_HOME" in str(caught.value)


def test_program_refuses_odd_requests() -> None:
    one = encode_layers((Layer("/a", (1, 2)),), USER, leased=False)
    two = encode_layers((Layer("/a", (1, 2)), Layer("/b", (1, 2))), USER, leased=False)
    for body, fds in (
        (one, []),
        (two[:-1], []),
        (two + b"\0", []),
        (two.replace(b"/b", b"b/"), []),
        (two, [0]),
        (encode_layers((), USER, leased=False), []),
        (encode_layers((Layer("/a", (1, 2)),) * 66, USER, leased=False), []),
        (encode_layers((), 0, leased=False), [0, 0]),
    ):
        refused = failure(body, fds, Request.LAYERS)
        assert (refused.step.name, refused.error) == ("PROTOCOL", errno.EPROTO)
