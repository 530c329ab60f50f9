"""The bait: what lies on a host for attackers to find, and what was done to it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["HOST_SECRETS", "SECRET", "Bait", "lay_bait"]

SECRET: Final = "TOPSECRET"
PROGRAM: Final = Path(__file__).parent / "host_program.py"

HOST_SECRETS: Final = ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "SSH_AUTH_SOCK")
"""Variables of the host program, each with a secret."""

# Everybody may read all of it, so that nothing but the wall keeps a sandbox out.
FILES: Final = {
    "home/.ssh/id_rsa": SECRET,
    "home/.aws/credentials": SECRET,
    "home/.netrc": f"machine example.com password {SECRET}",
    "home/.gitconfig": f"[user]\n\ttoken = {SECRET}\n",
    "home/.bashrc": "# untouched\n",
    "home/data": f"{SECRET} data\n",
    "home/victim/keep": "keep\n",
    "beside/secret": SECRET,
    "granted/data": "granted\n",
    "granted/sub/more": "more\n",
    "sibling/secret": SECRET,
    "workspace/tracked": "tracked\n",
    "workspace/sub/file": "file\n",
}
LINKS: Final = {
    "workspace/out": "../home",
    "workspace/dangling": "../beside/made",
    "workspace/granted": "../granted",
}
SPECIAL: Final = stat.S_ISUID | stat.S_ISGID


@dataclass(frozen=True, slots=True)
class Bait:
    """A host's directories and open doors.

    Attributes:
        base: the directory of all others; it holds ``workspace`` and, beside it, what is not to
            be reached.
        scattered: secrets in directories that programs of the machine share.
        variables: where everything is, as attacks are told by their environment.
    """

    base: Path
    scattered: tuple[Path, ...]
    variables: Mapping[str, str]

    @property
    def workspace(self) -> Path:
        """Where commands work."""
        return self.base / "workspace"

    def reset(self) -> None:
        """Lay it anew, where it is not as it was laid."""
        for top in {name.partition("/")[0] for name in FILES}:
            if not self._is_whole(top):
                self._lay(top)
        for path in self.scattered:
            path.write_text(SECRET)

    def _lay(self, top: str) -> None:
        shutil.rmtree(self.base / top, ignore_errors=True)
        for name in sorted(name for name in FILES if name.startswith(f"{top}/")):
            path = self.base / name
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            path.write_text(FILES[name])
        for name in sorted(name for name in LINKS if name.startswith(f"{top}/")):
            (self.base / name).symlink_to(LINKS[name])

    def _is_whole(self, top: str) -> bool:
        names = {name for name in FILES if name.startswith(f"{top}/")}
        links = {name for name in LINKS if name.startswith(f"{top}/")}
        return not (
            any(self._change_of(name) for name in names)
            or any(self._find_new(names | links))
            or any(not (self.base / name).is_symlink() for name in links)
        )

    def damage(self) -> list[str]:
        """What is not as it was laid; of the workspace, what no workspace may hold."""
        outside = {name for name in FILES if not name.startswith("workspace/")}
        return [
            *(f"{path} was changed" for path in self.scattered if path.read_text() != SECRET),
            *(change for name in sorted(outside) if (change := self._change_of(name))),
            *(f"{path} was made" for path in self._find_new(outside)),
            *self._find_special(),
        ]

    def _change_of(self, name: str) -> str:
        path = self.base / name
        if not path.is_file():
            return f"{name} is gone"
        facts = path.lstat()
        if stat.S_IMODE(facts.st_mode) != 0o644 or facts.st_nlink != 1:
            return f"{name} has another mode or another link: {facts}"
        return "" if path.read_text() == FILES[name] else f"{name} has another content"

    def _find_new(self, names: set[str]) -> Iterator[Path]:
        directories = {str(parent) for name in names for parent in Path(name).parents}
        for top in sorted({name.partition("/")[0] for name in names}):
            for path in (self.base / top).rglob("*"):
                if str(path.relative_to(self.base)) not in names | directories:
                    yield path

    def _find_special(self) -> Iterator[str]:
        for path in self.workspace.rglob("*"):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & SPECIAL:
                yield f"{path} is {stat.filemode(mode)} on the host"
            if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                yield f"{path} is a device on the host"


@contextmanager
def run_program(place: Path) -> Iterator[dict[str, object]]:
    """The host program, for as long as the context lasts; gives where its doors are."""
    environment = {"PATH": os.environ["PATH"], "PROGRAM_SECRET": SECRET}
    with subprocess.Popen(
        [sys.executable, "-I", str(PROGRAM), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=place,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        with program.stdin:
            yield json.loads(program.stdout.readline())


def read_line(path: str) -> str:
    """The content of a file of one line, or nothing where there is none."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


@contextmanager
def lay_bait() -> Iterator[Bait]:
    """Bait for as long as the context lasts."""
    base = Path(tempfile.mkdtemp(prefix="bait-"))
    base.chmod(0o755)
    scattered = tuple(
        Path(tempfile.mkstemp(prefix="bait-", dir=directory)[1])
        for directory in ("/tmp", "/var/tmp", "/dev/shm")
    )
    for path in scattered:
        path.chmod(0o644)
    (base / "doors").mkdir(mode=0o755)
    (base / "doors" / "secret").write_text(SECRET)
    try:
        with run_program(base / "doors") as doors:
            facts = doors | {name.upper(): base / name for name in ("home", "beside", "granted")}
            facts |= {"SIBLING": base / "sibling", "PYTHON": sys.executable}
            facts |= zip(("TMP", "VAR_TMP", "SHM"), scattered, strict=True)
            facts |= {"MACHINE": read_line("/etc/machine-id"), "HOST": socket.gethostname()}
            variables = {f"BAIT_{name}": str(value) for name, value in facts.items()}
            bait = Bait(base, scattered, variables)
            bait.reset()
            yield bait
    finally:
        for path in scattered:
            path.unlink(missing_ok=True)
        shutil.rmtree(base, ignore_errors=True)
