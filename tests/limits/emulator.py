"""A machine in an emulator, with a kernel of its own: what this machine's kernel does not show.

It boots a stock kernel and a root made of this interpreter's own files, runs one script in it as
its first process, and reads what that prints. The emulator is found on PATH (Debian: qemu-system-x86),
the kernel in /boot (Debian: linux-image-amd64 or -cloud-amd64), where the variables SANDYARD_QEMU and
SANDYARD_KERNEL name no others; scripts/with-machine fetches both, and sets them, and SANDYARD_LATE_KERNEL
for what older kernels do not show.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sandyard

PROGRAMS = ("sh", "sleep", "true", "head", "cat", "timeout", "id")
MODULES = """
import sys
from sandyard import *
import asyncio, encodings.idna, encodings.ascii, json, ctypes, shutil, time, socket, subprocess, traceback
import sandyard.process.cgroup, sandyard.platform.cgroups, sandyard.workspace.review, sandyard.checkup
for module in list(sys.modules.values()):
    path = getattr(module, "__file__", None)
    if path:
        print(path)
        cached = getattr(module, "__cached__", None)
        if cached:
            print(cached)
"""
APPARMOR = "/usr/share/apparmor-root"
BOOT_TIMEOUT_S = 1800
MARK = "RESULT "


def find_emulator(*, late: bool = False) -> tuple[str, str] | None:
    """The emulator and a kernel for it, or None; ``late`` asks for one of Linux 6.16 at least."""
    qemu = os.environ.get("SANDYARD_QEMU") or shutil.which("qemu-system-x86_64")
    kernels = sorted(glob.glob("/boot/vmlinuz-*"))
    kernel = os.environ.get("SANDYARD_KERNEL") or (kernels[-1] if kernels else None)
    if late:
        kernel = os.environ.get("SANDYARD_LATE_KERNEL")
    if qemu is None or kernel is None or not os.access(kernel, os.R_OK):
        return None
    return qemu, kernel


def run_guest(
    script: Path,
    place: Path,
    emulator: tuple[str, str],
    *,
    options: str = "",
    more: dict[str, Path | str | None] | None = None,
) -> dict[str, Any]:
    """Boot a machine whose first process is a script; return what it printed after the mark.

    Args:
        script: what it runs.
        place: a directory, for its root.
        emulator: what ``find_emulator`` found.
        options: for the kernel, besides.
        more: what its root holds besides.
    """
    qemu, kernel = emulator
    image = place / "initramfs"
    with open(image, "wb") as file:
        for part in archive(sorted((collect(script) | (more or {})).items())):
            file.write(part)
    command = [qemu, "-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "1536", "-smp", "1"]
    command += ["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
    command += ["-kernel", kernel, "-initrd", str(image)]
    # cgroup_no_v1: all controllers belong to version 2, whatever the kernel's own default is.
    command += ["-append", f"console=ttyS0 panic=-1 quiet cgroup_no_v1=all rdinit=/init {options}"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=BOOT_TIMEOUT_S,
        check=False,
    )
    text = done.stdout.decode("utf-8", "replace")
    found = [line for line in text.splitlines() if MARK in line]
    assert found, text[-4000:]
    image.unlink()
    answer: dict[str, Any] = json.loads(found[-1].partition(MARK)[2])
    return answer


def collect(script: Path) -> dict[str, Path | str | None]:
    """What the guest's root holds: a file, a link's target, or None for a directory."""
    found: dict[str, Path | str | None] = dict.fromkeys(
        ("/proc", "/sys", "/dev", "/tmp", "/etc", "/root", "/usr/bin", "/usr/lib64", "/new")
    )
    found |= {"/bin": "usr/bin", "/sbin": "usr/bin", "/lib": "usr/lib", "/lib64": "usr/lib64"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    binaries = [Path(os.path.realpath(sys.executable))]
    found[f"/usr/bin/{version}"] = binaries[0]
    found["/usr/bin/python3"] = version
    for name in PROGRAMS:
        program = Path(os.path.realpath(shutil.which(name) or f"/bin/{name}"))
        found[f"/usr/bin/{name}"] = program
        binaries.append(program)
    places = sorted((os.path.realpath(path) for path in sys.path if path), key=len, reverse=True)
    listing = subprocess.run(
        [sys.executable, "-c", MODULES], stdout=subprocess.PIPE, text=True, check=True
    )
    for path in map(Path, map(os.path.realpath, listing.stdout.splitlines())):
        top = next((top for top in places if str(path).startswith(f"{top}/")), None)
        if top is None or not path.exists():
            continue
        inner = path.relative_to(top)
        below = f"{version}/lib-dynload" if top.endswith("lib-dynload") else version
        found[f"/usr/lib/{below}/{inner}"] = path
        if ".so" in path.name:
            binaries.append(path)
    package = Path(sandyard.__file__).parent
    for file in (*package.rglob("*.py"), package / "_bin" / "sandyard-init"):
        found[f"/usr/lib/{version}/sandyard/{file.relative_to(package)}"] = file
    for library in libraries(binaries):
        loader = library.name.startswith("ld-linux")
        found[f"/usr/{'lib64' if loader else 'lib'}/{library.name}"] = library.resolve()
    found["/init"] = script
    found[f"/usr/lib/{version}/guest.py"] = Path(__file__).with_name("guest.py")
    return found


def apparmor() -> dict[str, Path | str | None] | None:
    """The programs of AppArmor with what they need, for ``run_guest``; or None (see scripts/with-machine)."""
    root = Path(os.environ.get("SANDYARD_APPARMOR") or "/nowhere")
    found: dict[str, Path | str | None] = {}
    for pattern in (
        "usr/sbin/apparmor_parser",
        "usr/lib/*/ld-linux-x86-64.so.2",
        "usr/lib/*/libc.so.6",
    ):
        found |= {f"{APPARMOR}/{path.name}": path for path in root.glob(pattern)}
    policy = root / "etc/apparmor.d"
    for path in (*policy.glob("abi/*"), *policy.glob("tunables/**/*")):
        if path.is_file():
            found[f"{APPARMOR}/apparmor.d/{path.relative_to(policy)}"] = path.resolve()
    return found or None


def libraries(binaries: list[Path]) -> set[Path]:
    """The shared libraries that programs need."""
    text = subprocess.run(
        ["ldd", *map(str, binaries)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    ).stdout.decode()
    return {Path(path) for path in re.findall(r"(/[^\s:()]+\.so[^\s:()]*) \(0x", text)}


def archive(entries: list[tuple[str, Path | str | None]]) -> Iterator[bytes]:
    """A cpio archive of the kind that kernels unpack (newc; initramfs-buffer-format.rst)."""
    names: dict[str, Path | str | None] = {}
    for name, what in entries:
        for parent in reversed(Path(name).parents):
            if str(parent) != "/":
                names.setdefault(str(parent), None)
        names[name] = what
    for number, (name, what) in enumerate(names.items(), 1):
        yield record(number, name, what)
    yield header(0, "TRAILER!!!", 0, 0, 0)


def record(number: int, name: str, what: Path | str | None) -> bytes:
    """One entry of an archive."""
    if what is None:
        mode = 0o1777 if name == "/tmp" else 0o755
        return header(number, name[1:], stat.S_IFDIR | mode, 0, 0)
    if isinstance(what, str):
        return header(number, name[1:], stat.S_IFLNK | 0o777, len(what), 0) + padded(what.encode())
    data = what.read_bytes()
    mtime = int(what.stat().st_mtime)  # by which compiled modules are known to be fresh
    return header(number, name[1:], stat.S_IFREG | 0o755, len(data), mtime) + padded(data)


def header(number: int, name: str, mode: int, size: int, mtime: int) -> bytes:
    """The head of one entry, with its name."""
    fields = (number, mode, 0, 0, 1, mtime, size, 0, 0, 0, 0, len(name) + 1, 0)
    return padded(b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0")


def padded(data: bytes) -> bytes:
    """Data up to the next multiple of four bytes."""
    return data + bytes(-len(data) % 4)
