"""The wheel's build hook: flags, tags, and a message that says what to install."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import hatch_build
from tests.house.sources import ROOT

NATIVE = ROOT / "native"


def run_hook(root: Path, version: str = "standard") -> dict[str, Any]:
    """What the hook asks of the builder for a wheel of this tree."""
    data: dict[str, Any] = {"force_include": {}}
    # The builder passes more; the hook uses the root alone.
    builder: Any = None
    hook = hatch_build.CustomBuildHook(str(root), {}, builder, builder, str(root), "wheel")
    hook.initialize(version, data)
    return data


def make_tree(root: Path) -> Path:
    """A tree with the smallest program."""
    (root / "native" / "fuzz").mkdir(parents=True)
    (root / "native" / "main.c").write_text("int main(void) { return 0; }\n")
    (root / "native" / "fuzz" / "not_ours.c").write_text("#error not part of the program\n")
    (root / "native" / "flags.txt").write_text("# why\n-O1 -Wall  # both\n\n")
    return root


def test_flags_lose_their_comments(tmp_path: Path) -> None:
    assert hatch_build.read_flags(make_tree(tmp_path) / "native") == ["-O1", "-Wall"]
    flags = hatch_build.read_flags(NATIVE)
    assert {"-static", "-std=c11", "-Wl,-z,now"} <= set(flags)
    assert all(flag.startswith("-") for flag in flags)


@pytest.mark.skipif(sys.platform != "linux", reason="the program is Linux's")
def test_wheel_carries_program(tmp_path: Path) -> None:
    data = run_hook(make_tree(tmp_path))
    ((source, target),) = data["force_include"].items()
    assert target == "sandyard/_bin/sandyard-init"
    assert Path(source).stat().st_mode & 0o777 == 0o755
    assert data["tag"].startswith("py3-none-linux_")
    assert data["pure_python"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="the program is Linux's")
def test_editable_compiles_when_older(tmp_path: Path) -> None:
    program = tmp_path / "src" / "sandyard" / "_bin" / "sandyard-init"
    make_tree(tmp_path)
    assert not run_hook(tmp_path, "editable")["force_include"]
    first = program.stat().st_ino
    run_hook(tmp_path, "editable")
    assert program.stat().st_ino == first
    (tmp_path / "native" / "main.c").write_text("int main(void) { return 1; }\n")
    run_hook(tmp_path, "editable")
    assert program.stat().st_ino != first
    assert [file.name for file in program.parent.iterdir()] == ["sandyard-init"]


def test_macos_has_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "macosx-11.0-arm64")
    data = run_hook(make_tree(tmp_path))
    assert data["tag"] == "py3-none-macosx_11_0_arm64"
    assert not data["force_include"]


def test_cross_compiler_names_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "echo aarch64-linux-musl")
    assert hatch_build.linux_platform() == "linux_aarch64"
    monkeypatch.setenv("CC", "echo arm-linux-gnueabihf")
    assert hatch_build.linux_platform() == "linux_armv7l"


def test_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(hatch_build.NativeBuildError, match="apt install gcc libc6-dev"):
        hatch_build.linux_platform()


def test_compiler_error_is_shown(tmp_path: Path) -> None:
    (make_tree(tmp_path) / "native" / "main.c").write_text("#error mistake of ours\n")
    with pytest.raises(hatch_build.NativeBuildError, match="mistake of ours") as caught:
        run_hook(tmp_path)
    assert "apt install" not in str(caught.value)
