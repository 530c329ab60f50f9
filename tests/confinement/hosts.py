"""Three hosts as values, for tests that compare plans whole."""

from __future__ import annotations

from typing import Final

from sandyard.confinement import WorkspaceRoot
from sandyard.platform import Grant, HostEntry, HostFacts, Toolchains

GIB: Final = 1024**3
MIB: Final = 1024**2

DEBIAN_ROOT: Final = HostFacts(
    system="linux",
    machine="x86_64",
    euid=0,
    egid=0,
    landlock_abi=7,
    memory_bytes=8 * GIB,
    shell="/bin/bash",
    system_trees=("/usr", "/sys/devices/system/cpu", "/sys/devices/system/node"),
    root_entries=(
        HostEntry("/bin", "/usr/bin", "usr/bin"),
        HostEntry("/lib", "/usr/lib", "usr/lib"),
        HostEntry("/lib64", "/usr/lib64", "usr/lib64"),
        HostEntry("/sbin", "/usr/sbin", "usr/sbin"),
    ),
    etc=(
        HostEntry("/etc/ld.so.cache", "/etc/ld.so.cache"),
        HostEntry("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC", "/usr/share/zoneinfo/Etc/UTC"),
        HostEntry("/etc/ssl/certs", "/etc/ssl/certs"),
    ),
    network_etc=(
        HostEntry("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"),
        HostEntry("/etc/hosts", "/etc/hosts"),
    ),
    toolchains=Toolchains(
        roots=("/root/.cargo/bin", "/root/.pyenv", "/root/.rustup"),
        links=(("/opt/py", "/root/.pyenv"),),
        masks=("/root/.pyenv/pip.conf", "/usr/local/etc/npmrc"),
        variables=(("PYENV_ROOT", "/root/.pyenv"), ("RUSTUP_HOME", "/root/.rustup")),
    ),
    search_path=("/root/.pyenv/shims", "/root/.cargo/bin", "/usr/bin", "/bin"),
)
"""Debian with merged /usr, run by root."""

OLD_USER: Final = HostFacts(
    system="linux",
    machine="x86_64",
    euid=1001,
    egid=100,
    landlock_abi=2,
    memory_bytes=512 * MIB,
    shell="/bin/sh",
    system_trees=("/usr",),
    root_entries=(
        HostEntry("/bin", "/bin"),
        HostEntry("/lib", "/lib"),
        HostEntry("/lib64", "/lib", "lib"),
    ),
    etc=(
        HostEntry("/etc/ld-musl-x86_64.path", "/etc/ld-musl-x86_64.path"),
        HostEntry("/etc/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
    ),
    network_etc=(),
    toolchains=Toolchains(),
    search_path=("/usr/bin", "/bin"),
)
"""An ordinary user of a system whose /bin and /lib are directories, with little memory."""

ARM_BARE: Final = HostFacts(
    system="linux",
    machine="aarch64",
    euid=1000,
    egid=1000,
    landlock_abi=0,
    memory_bytes=1024 * GIB,
    shell="/bin/bash",
    system_trees=("/usr", "/nix/store"),
    root_entries=(HostEntry("/bin", "/usr/bin", "usr/bin"),),
    etc=(HostEntry("/etc/fonts", "/nix/store/abc-etc/fonts", "/nix/store/abc-etc/fonts"),),
    network_etc=(HostEntry("/etc/nsswitch.conf", "/etc/nsswitch.conf"),),
    toolchains=Toolchains(roots=("/home/agent/.venv",)),
    search_path=("/home/agent/.venv/bin", "/usr/bin", "/bin"),
)
"""An ordinary user of an ARM machine whose kernel has no Landlock, and much memory."""

HOSTS: Final = (DEBIAN_ROOT, OLD_USER, ARM_BARE)

WORKSPACE: Final = WorkspaceRoot("/tmp/ws", "/tmp/ws", (7, 42))


def grant(path: str, *, writable: bool = False, source: str | None = None) -> Grant:
    """A granted path; its inode is made up and the same for all."""
    return Grant(path, source or path, writable, (7, 1))
