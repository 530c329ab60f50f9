"""Builds sandyard-init with the system's C compiler and puts it into the wheel."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROGRAM = "sandyard-init"

INSTALL_HINT = """
Sandyard's wheel contains one small C program, which is compiled with a C compiler and linked
statically. Install these, or name another compiler in CC:
    Debian, Ubuntu:  apt install gcc libc6-dev
    Fedora, RHEL:    dnf install gcc glibc-static kernel-headers
    Alpine:          apk add gcc musl-dev linux-headers
"""

# What a compiler prints when a header or a static library is not installed.
SIGNS_OF_ABSENCE = (
    "No such file or directory",
    "file not found",
    "cannot find -l",
    "unable to find",
)

SHOWN_LINES = 60  # of a failing compiler's output; the first errors are the causes

# The first word of the compiler's target, where Python's name for the machine differs from it.
MACHINE_NAMES = {"amd64": "x86_64", "arm": "armv7l", "i386": "i686", "i486": "i686", "i586": "i686"}


class NativeBuildError(RuntimeError):
    """The native program could not be built; the message says what to install or to look at."""


def read_flags(native: Path) -> list[str]:
    """The flags of native/flags.txt, without their comments."""
    lines = (native / "flags.txt").read_text(encoding="utf-8").splitlines()
    return [flag for line in lines for flag in line.partition("#")[0].split()]


def list_sources(native: Path) -> list[Path]:
    """The program's sources; native/fuzz/ lies deeper and is not part of it."""
    sources = sorted(native.glob("*.c"))
    if not sources:
        raise NativeBuildError(f"no C sources in {native}; is the checkout or the sdist complete?")
    return sources


def is_current(output: Path, native: Path) -> bool:
    """Whether the program is newer than everything that it is built from."""
    inputs = [*native.glob("*.c"), *native.glob("*.h"), native / "flags.txt", Path(__file__)]
    return output.exists() and output.stat().st_mtime >= max(f.stat().st_mtime for f in inputs)


def run_compiler(arguments: list[str]) -> str:
    """Run $CC (cc when unset) and return what it printed."""
    command = [*shlex.split(os.environ.get("CC") or "cc"), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NativeBuildError(f"there is no C compiler {command[0]!r}.\n{INSTALL_HINT}") from None
    if done.returncode != 0:
        shown = "\n".join(f"{done.stdout}{done.stderr}".splitlines()[:SHOWN_LINES])
        hint = INSTALL_HINT if any(sign in shown for sign in SIGNS_OF_ABSENCE) else ""
        raise NativeBuildError(f"the C compiler failed:\n{shlex.join(command)}\n{shown}\n{hint}")
    sys.stderr.write(done.stderr)
    return done.stdout


def compile_program(native: Path, output: Path) -> None:
    """Compile and link all sources in one call; the program appears whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f"{output.name}.{os.getpid()}")
    # The builder's own flags come first, so that ours win where they contradict.
    wanted = shlex.split(f"{os.environ.get('CFLAGS', '')} {os.environ.get('LDFLAGS', '')}")
    sources = [str(source) for source in list_sources(native)]
    try:
        run_compiler([*wanted, *read_flags(native), "-o", str(unfinished), *sources])
        unfinished.chmod(0o755)
        unfinished.rename(output)
    finally:
        unfinished.unlink(missing_ok=True)


def linux_platform() -> str:
    """The wheel's platform, by the compiler's target: a cross compiler names another machine."""
    machine = run_compiler(["-dumpmachine"]).strip().partition("-")[0]
    return f"linux_{MACHINE_NAMES.get(machine, machine)}"


class CustomBuildHook(BuildHookInterface[Any]):
    """Compiles on Linux; on macOS the wheel has no native program."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the program into the wheel, or beside the sources for an editable install."""
        build_data["pure_python"] = False
        if sys.platform == "darwin":
            macos = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{macos}"
            return
        if sys.platform != "linux":
            raise NativeBuildError(f"Sandyard runs on Linux and macOS, not on {sys.platform}")
        build_data["tag"] = f"py3-none-{linux_platform()}"
        root = Path(self.root)
        native = root / "native"
        if version == "editable":
            output = root / "src" / "sandyard" / "_bin" / PROGRAM
            if not is_current(output, native):
                compile_program(native, output)
            return
        output = root / "build" / PROGRAM
        compile_program(native, output)
        build_data["force_include"][str(output)] = f"sandyard/_bin/{PROGRAM}"
