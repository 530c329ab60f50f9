"""The opener: what the kernel does, and the walk that does the same in user space."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandyard.errors import ArgumentError, ArgumentTypeError, InvalidManifestPathError
from sandyard.limits import SYMLINK_HOPS
from sandyard.workspace.kernel import Kernel, open_without_links
from sandyard.workspace.names import names_beneath, split_names
from sandyard.workspace.opener import Opener

if TYPE_CHECKING:
    from pathlib import Path

    from sandyard.workspace import WorkspaceRoot


@pytest.fixture(params=["kernel", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs with openat2 and without it."""
    if request.param == "walk":
        monkeypatch.setattr(Kernel, "resolves", False)
    return str(request.param)


def _content(root: WorkspaceRoot, path: str) -> bytes:
    opened = root.opener.open(split_names(path), os.O_RDONLY)
    try:
        assert not os.get_inheritable(opened)
        return os.read(opened, 100)
    finally:
        os.close(opened)


def _errno(root: WorkspaceRoot, path: str, flags: int = os.O_RDONLY) -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is tested
        os.close(root.opener.open(split_names(path), flags))
    return caught.value.errno


@pytest.fixture
def tree(base: Path, bait: Path) -> Path:
    """Files, directories, and symlinks of every kind."""
    (base / "d/e").mkdir(parents=True)
    (base / "d/e/f").write_bytes(b"inside")
    for name, target in {
        "to-file": "d/e/f",
        "to-dir": "d",
        "up": "d/../d/e",
        "d/e/top": "../../d/e/f",
        "absolute": f"{base}/d/e/f",
        "absolute-dir": f"{base}/d",
        "chain": "absolute-dir/e/top",
        "self": ".",
        "loop": "loop",
        "loop-a": "loop-b",
        "loop-b": "loop-a",
        "dangling": "d/nothing",
        "out": "../bait",
        "out-absolute": str(bait),
        "out-secret": f"{bait}/secret",
        "out-etc": "/etc/passwd",
        "sibling": f"{base}-evil/x",
        "magic": "/proc/self/root",
        "d/e/far": "../../../bait/secret",
    }.items():
        (base / name).symlink_to(target)
    return base


@pytest.mark.usefixtures("way", "tree")
@pytest.mark.parametrize(
    "path",
    [
        "d/e/f",
        "to-file",
        "to-dir/e/f",
        "up/f",
        "d/e/top",
        "absolute",
        "absolute-dir/e/f",
        "chain",
        "self/self/d/e/f",
        "d/../d/e/f",
        "to-dir/../d/e/f",
        "absolute-dir/e/../e/f",
    ],
)
def test_what_lies_inside_is_opened(root: WorkspaceRoot, path: str) -> None:
    assert _content(root, path) == b"inside"


@pytest.mark.usefixtures("way", "tree")
@pytest.mark.parametrize(
    "path",
    [
        "..",
        "../bait/secret",
        "d/../../bait/secret",
        "out/secret",
        "out-absolute/secret",
        "out-secret",
        "out-etc",
        "sibling",
        "magic/etc/passwd",
        "d/e/far",
        "self/out/secret",
        "absolute-dir/../out/secret",
    ],
)
def test_what_lies_outside_is_not(root: WorkspaceRoot, path: str) -> None:
    assert _errno(root, path) == errno.EXDEV


@pytest.mark.usefixtures("way", "tree")
def test_other_errors_are_the_kernels(root: WorkspaceRoot) -> None:
    assert _errno(root, "loop") == errno.ELOOP
    assert _errno(root, "loop-a") == errno.ELOOP
    assert _errno(root, "dangling") == errno.ENOENT
    assert _errno(root, "nothing") == errno.ENOENT
    assert _errno(root, "to-file", os.O_RDONLY | os.O_NOFOLLOW) == errno.ELOOP
    assert _errno(root, "d/e/f", os.O_RDONLY | os.O_DIRECTORY) == errno.ENOTDIR


@pytest.mark.usefixtures("way")
def test_magic_links_are_not_followed(root: WorkspaceRoot, base: Path) -> None:
    (base / "root").symlink_to("/proc/self/root")
    (base / "cwd").symlink_to("/proc/self/cwd/../../etc/passwd")
    assert _errno(root, "root") in {errno.EXDEV, errno.ELOOP}
    assert _errno(root, "cwd") in {errno.EXDEV, errno.ELOOP}


@pytest.mark.usefixtures("way")
def test_hops_are_counted(root: WorkspaceRoot, base: Path) -> None:
    (base / "l0").write_bytes(b"end")
    for n in range(1, SYMLINK_HOPS + 2):
        (base / f"l{n}").symlink_to(base / f"l{n - 1}")
    assert _content(root, f"l{SYMLINK_HOPS}") == b"end"
    assert _errno(root, f"l{SYMLINK_HOPS + 1}") == errno.ELOOP


def test_inside_may_be_another_path(base: Path) -> None:
    (base / "f").write_bytes(b"inside")
    (base / "link").symlink_to("/parent/ws/f")
    (base / "host").symlink_to(base / "f")
    top = os.open(base, os.O_RDONLY)
    try:
        opener = Opener(top, "/parent/ws")
        os.close(opener.open(("link",), os.O_RDONLY))
        with pytest.raises(OSError, match="cross-device"):
            opener.open(("host",), os.O_RDONLY)
    finally:
        os.close(top)


@pytest.mark.usefixtures("way")
def test_paths_longer_than_one_call_takes(root: WorkspaceRoot) -> None:
    names = ("n" * 200,) * 40
    here = os.dup(root.fd)
    for name in names:
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    os.close(root.opener.open((*names, "f"), os.O_RDONLY))


@pytest.mark.usefixtures("way")
def test_sources_without_links(base: Path, tree: Path) -> None:
    os.close(open_without_links(str(base / "d/e/f"), os.O_RDONLY))
    os.close(open_without_links("/", os.O_RDONLY | os.O_DIRECTORY))
    for path in ("to-file", "to-dir/e/f", "absolute-dir/e/f"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is tested
            open_without_links(str(tree / path), os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP, path


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (".", ()),
        ("a//./b/", ("a", "b")),
        ("/ws", ()),
        ("//ws/./a", ("a",)),
        ("a/../b", ("a", "..", "b")),
        ("\udc80", ("\udc80",)),
        ("a\\b\n", ("a\\b\n",)),
    ],
)
def test_names(path: str, names: tuple[str, ...]) -> None:
    assert names_beneath(path, "/ws", "read") == names


@pytest.mark.parametrize("path", ["/", "/w", "/wsx", "/ws-evil/a", "/etc/passwd"])
def test_absolute_paths_elsewhere(path: str) -> None:
    with pytest.raises(InvalidManifestPathError) as caught:
        names_beneath(path, "/ws", "read")
    assert caught.value.context == {"rel": path, "reason": "absolute"}


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800", "x" * 256, "a/" + "é" * 128])
def test_impossible_paths(path: str) -> None:
    with pytest.raises(ArgumentError, match="path"):
        names_beneath(path, "/ws", "read")


@pytest.mark.parametrize("path", [None, 3, b"a", ["a"]])
def test_paths_of_other_types(path: object) -> None:
    with pytest.raises(ArgumentTypeError):
        names_beneath(path, "/ws", "read")


# --- the walk and realpath(3) agree -----------------------------------------------------------

_PARTS = st.sampled_from(["..", ".", "a", "b", "link", "new", "f"])
_PATHS = st.lists(_PARTS, min_size=1, max_size=6).map("/".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    targets=st.dictionaries(st.sampled_from(["link", "a/link", "a/b/link"]), _PATHS),
    path=_PATHS,
    absolute=st.booleans(),
)
def test_walk_and_realpath_agree(
    tmp_path_factory: pytest.TempPathFactory,
    targets: dict[str, str],
    path: str,
    absolute: bool,
) -> None:
    base = tmp_path_factory.mktemp("w").resolve()
    (base / "ws/a/b").mkdir(parents=True)
    (base / "ws/f").touch()
    for name, target in targets.items():
        (base / "ws" / name).symlink_to(f"{base}/ws/{target}" if absolute else target)
    top = os.open(base / "ws", os.O_RDONLY)
    try:
        expected = os.path.realpath(base / "ws" / path)
        found, refusal = _walked(top, f"{base}/ws", path)
    finally:
        os.close(top)
    if found is None:
        # Leaving the root is refused although a path may come back; a loop has no answer.
        assert refusal in {errno.EXDEV, errno.ELOOP}
        assert refusal == errno.ELOOP or ".." in f"{path}{targets}"
    else:
        assert found == expected
        assert f"{found}/".startswith(f"{base}/ws/")


def _walked(top: int, inside: str, path: str) -> tuple[str | None, int | None]:
    """Return where the walk leads, or why it does not."""
    try:
        with Opener(top, inside).place(split_names(path)) as place:
            return "/".join((inside, *place.real, *place.rest)), None
    except OSError as error:
        return None, error.errno
