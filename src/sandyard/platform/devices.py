"""Devices that a policy may name: which nodes they are on this host, and whether we may open them."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from sandyard.errors import PolicyError
from sandyard.platform.shortage import refuse_shortage

if TYPE_CHECKING:
    from sandyard.policy import DeviceOption, Policy

__all__ = ["DeviceNode", "device_option", "resolve_devices"]


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A character device of the host.

    Attributes:
        path: its node.
        major: number of its driver.
        minor: number of the device.
        tree: the directory in which the kernel describes the hardware; None where nobody asks.
        links: ``(path, target)`` symlinks by which programs find them.
    """

    path: str
    major: int
    minor: int
    tree: str | None = None
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Kind:
    """What belongs to one name.

    Attributes:
        patterns: of its nodes.
        remedy: what to do where there is none.
        described: whether programs need the kernel's description of the hardware.
    """

    patterns: tuple[str, ...]
    remedy: str
    described: bool = False


_KINDS: Final[dict[DeviceOption, _Kind]] = {
    "gpu": _Kind(
        # What computes and draws. Not the nodes that own a screen (card*, nvidia-modeset), nor those
        # that divide a card (nvidia-caps): whoever opens these decides for others too.
        (
            "/dev/dri/renderD*",
            "/dev/nvidia[0-9]*",
            "/dev/nvidiactl",
            "/dev/nvidia-uvm",
            "/dev/nvidia-uvm-tools",
            "/dev/kfd",
            "/dev/dxg",
        ),
        "install the driver of the graphics card, or give this machine one",
        described=True,
    ),
    "kvm": _Kind(
        ("/dev/kvm",),
        "turn virtualisation on in the firmware, or nested virtualisation on the host of this "
        "machine, and load the module (modprobe kvm_intel, or kvm_amd)",
    ),
    "fuse": _Kind(("/dev/fuse",), "load the module (modprobe fuse)"),
    "tun": _Kind(("/dev/net/tun",), "load the module (modprobe tun)"),
}

_CHARACTER_DEVICES: Final = "/sys/dev/char"
_HARDWARE: Final = "/sys/devices/"


def resolve_devices(policy: Policy) -> tuple[DeviceNode, ...]:
    """Find what ``policy`` names in ``devices``, by opening it.

    Blocks on the file system. Of a name with several nodes, those that can be opened count: whether
    a device is there, and not only its node, is what opening tells.

    Raises:
        PolicyError: there is none, or this user can't open any.
        OSError: this program, or the machine, has no descriptor left to look with.
    """
    return tuple(node for option in policy.devices for node in _resolve(option))


def device_option(path: str) -> DeviceOption | None:
    """The name in a policy that shows a path in /dev; None where there is none."""
    for option, kind in _KINDS.items():
        if any(fnmatchcase(path, pattern) for pattern in kind.patterns):
            return option
    return None


def _resolve(option: DeviceOption) -> list[DeviceNode]:
    from glob import glob  # noqa: PLC0415  # few policies name a device

    kind = _KINDS[option]
    found, refused = [], list[tuple[str, os.stat_result, OSError]]()
    for path in sorted(path for pattern in kind.patterns for path in glob(pattern)):
        try:
            facts = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:  # unplugged this moment
            continue
        if not stat.S_ISCHR(facts.st_mode):
            continue
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW))
        except OSError as error:
            refuse_shortage(error)
            if error.errno != errno.EBUSY:  # somebody uses it now: that it is there counts
                refused.append((path, facts, error))
                continue
        found.append(_node(path, facts.st_rdev, described=kind.described))
    if found:
        return found
    if not refused:
        raise _refusal(option, f"this machine has no {kind.patterns[0]}", kind.remedy)
    path, facts, cause = refused[0]
    may_not = cause.errno in (errno.EACCES, errno.EPERM)
    remedy = _admission(path, facts) if may_not else kind.remedy
    raise _refusal(option, f"{path} can't be opened: {cause.strerror}", remedy, cause)


def _node(path: str, number: int, *, described: bool) -> DeviceNode:
    major, minor = os.major(number), os.minor(number)
    link = f"{_CHARACTER_DEVICES}/{major}:{minor}"
    place = os.path.realpath(link)
    if not described or not place.startswith(_HARDWARE) or not os.path.isdir(place):
        return DeviceNode(path, major, minor)
    links = [(link, place)]
    subsystem = os.path.realpath(f"{place}/subsystem")
    if subsystem.startswith("/sys/class/"):
        links.append((f"{subsystem}/{os.path.basename(place)}", place))
    hardware = os.path.realpath(f"{place}/device")
    # The directory of that one piece of hardware, and not of the bus that others hang on too.
    tree = hardware if place.startswith(f"{hardware}/") else place
    return DeviceNode(path, major, minor, tree, tuple(links))


def _admission(path: str, facts: os.stat_result) -> str:
    """What lets this user open a node."""
    user = _name_of(os.geteuid())
    both = stat.S_IRGRP | stat.S_IWGRP
    if facts.st_gid != 0 and facts.st_mode & both == both:
        try:
            group = grp.getgrgid(facts.st_gid).gr_name
        except KeyError:
            group = str(facts.st_gid)
        return f"join its group (sudo usermod -aG {group} {user}) and log in again"
    if os.geteuid() == 0:
        return "let this container use the device (such as docker run --device)"
    return f"let this user open it, as with: sudo setfacl -m u:{user}:rw {path}"


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _refusal(
    option: DeviceOption, reason: str, remedy: str, cause: OSError | None = None
) -> PolicyError:
    return PolicyError(
        f"{option!r} in devices can't be given: {reason}. To fix it: {remedy}",
        field="devices",
        value=option,
        cause=cause,
    )
