"""What users install: the sdist builds the wheel, and the wheel runs a confined command."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.sources import ROOT

pytestmark = [pytest.mark.install, pytest.mark.timeout(300)]

ON_LINUX = sys.platform == "linux"
PROGRAM = "sandyard/_bin/sandyard-init"

SESSION = """
import asyncio
from sandyard import UnixLocalSandboxClient

async def main():
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        async with session:
            result = await session.exec("echo hi")
            print(result.exit_code, result.stdout.decode(), end="")
    finally:
        await client.delete(session)

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command outside of the checkout and return what it printed."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    place = tmp_path_factory.mktemp("sdist")
    build = (sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", place, ROOT)
    run(*build, cwd=place)
    (archive,) = place.glob("sandyard-*.tar.gz")
    run("tar", "--extract", "--file", archive, cwd=place)
    return place / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from nothing but the source distribution."""
    place = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", place, sdist)
    run(*build, cwd=place)
    (file,) = place.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and what it requires, no more."""
    place = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place)
    python = place / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    pins = ROOT / "scripts" / "constraints.txt"
    run(*pip, "install", "--quiet", "--constraint", pins, wheel, cwd=place)
    return python


def test_sdist_has_sources_only(sdist: Path) -> None:
    files = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    assert {"LICENSE", "Makefile", "hatch_build.py", "native/flags.txt", ".ci/run"} <= files
    assert any(re.fullmatch(r"native/\w+\.c", name) for name in files)
    assert not {name for name in files if "_bin/" in name or "__pycache__" in name}


def test_wheel_has_program_and_tag(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = next(name for name in names if name.endswith(".dist-info/WHEEL"))
        about = archive.read(info).decode()
        assert not {name for name in names if not name.startswith(("sandyard/", "sandyard-"))}
        assert {"sandyard/__init__.py", "sandyard/py.typed"} <= names
        assert (PROGRAM in names) == ON_LINUX
        if ON_LINUX:
            mode = archive.getinfo(PROGRAM).external_attr >> 16
            assert stat.S_IMODE(mode) == 0o755
    assert "Root-Is-Purelib: false" in about
    system = "linux" if ON_LINUX else "macosx"
    assert re.search(rf"^Tag: py3-none-{system}_\w+$", about, re.MULTILINE)


def test_runs_confined_command(python: Path, tmp_path: Path) -> None:
    assert run(python, "-c", SESSION, cwd=tmp_path) == "0 hi\n"


def test_command_line_names_its_extra(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python.with_name("sandyard")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "sandyard[cli]" in done.stderr
    assert "Traceback" not in done.stderr
