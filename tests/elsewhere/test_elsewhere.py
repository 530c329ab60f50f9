"""Where there is no Linux: everything loads, and what needs a wall refuses before it makes anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from sandyard.elsewhere import missing_part

PROGRAM = Path(__file__).with_name("pretending.py")


@pytest.mark.parametrize(("system", "called"), [("darwin", "macOS"), ("win32", "Windows")])
def test_refuses_before_making(tmp_path: Path, system: str, called: str) -> None:
    places = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, PROGRAM, system],
        cwd=tmp_path,
        env=places,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    said = cast(dict[str, object], json.loads(done.stdout))
    assert f"this is {called}" in str(said["refused"])
    assert said["made"] == []
    assert said.get("scripted") == ("hi" if system == "darwin" else None)
    assert said["results"] == "sandyard.types"  # values are themselves, not what stands in for them
    missing = cast(list[str], said["missing"])
    assert ("UnixLocalSandboxClient" in missing) == (system == "win32")
    assert not {"ExecResult", "Manifest", "Policy", "SandboxSession"} & set(missing)


def test_stand_ins_hide_nothing() -> None:
    lacking = ImportError("no pydantic", name="pydantic")
    assert not missing_part(lacking, "win32")
    assert missing_part(ImportError("no fcntl", name="fcntl"), "win32")
    assert not missing_part(ImportError("no fcntl", name="fcntl"), "linux")
    assert not missing_part(AttributeError("O_PATH"), "linux")
