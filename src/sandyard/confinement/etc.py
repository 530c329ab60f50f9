"""/etc inside: the files that are built, and the entries of the host's that are shared."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sandyard.confinement.sizes import AGENT_GID, AGENT_UID
from sandyard.plan import Bind, MountStep, Symlink, TextFile

if TYPE_CHECKING:
    from sandyard.platform import HostEntry, HostFacts

__all__ = ["BUILT_FILES", "HOME", "HOSTNAME", "USER", "etc_steps", "host_entry"]

HOSTNAME: Final = "sandyard"
"""The name of the machine inside. The host's would tell where commands run."""

USER: Final = "agent"
HOME: Final = "/home/agent"

MACHINE_ID: Final = b"sandyardsandyard".hex()
"""machine-id(5) is a secret that identifies the host, so it is never the host's. All sessions have
the same: programs ask only that it is there, and a session's own would make every plan differ."""

_NOBODY: Final = 65534
"""What the kernel shows for owners that have no number inside (/proc/sys/kernel/overflowuid)."""

_HOSTS: Final = f"""\
127.0.0.1 localhost {HOSTNAME}
::1 localhost ip6-localhost ip6-loopback
"""

_NSSWITCH: Final = """\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
"""

BUILT_FILES: Final = (
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/mtab",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/resolv.conf",
)
"""Names in /etc that no policy can replace."""


def etc_steps(facts: HostFacts, *, host_network: bool) -> Iterator[MountStep]:
    """What stands in /etc, in no particular order."""
    shared = facts.etc + (facts.network_etc if host_network else ())
    taken = {entry.path for entry in shared}
    for path, text in _built(facts.shell).items():
        if path not in taken:
            yield TextFile(path, text.encode())
    yield Symlink("/etc/mtab", "/proc/self/mounts")
    # Facts are kept for the life of the program, and packages come and go meanwhile.
    yield from (host_entry(entry, optional=True) for entry in shared)


def host_entry(entry: HostEntry, *, optional: bool) -> MountStep:
    """The step that makes ``entry`` have the same name inside."""
    if entry.link is not None:
        return Symlink(entry.path, entry.link)
    return Bind(entry.source, entry.path, optional=optional)


@lru_cache(maxsize=2)  # one for each shell
def _built(shell: str) -> dict[str, str]:
    return {
        "/etc/group": (f"root:x:0:\n{USER}:x:{AGENT_GID}:\nnogroup:x:{_NOBODY}:\n"),
        "/etc/hostname": f"{HOSTNAME}\n",
        "/etc/hosts": _HOSTS,
        "/etc/machine-id": f"{MACHINE_ID}\n",
        "/etc/nsswitch.conf": _NSSWITCH,
        "/etc/passwd": (
            f"root:x:0:0:root:/root:{shell}\n"
            f"{USER}:x:{AGENT_UID}:{AGENT_GID}:{USER}:{HOME}:{shell}\n"
            f"nobody:x:{_NOBODY}:{_NOBODY}:nobody:/nonexistent:/usr/sbin/nologin\n"
        ),
        "/etc/resolv.conf": "",
    }
