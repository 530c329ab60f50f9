"""Devices that a policy names can be used, and open no door to others."""

from __future__ import annotations

import os

import pytest

from sandyard import Policy, PolicyError
from sandyard.platform import resolve_devices
from sandyard.policy import DeviceOption
from tests.escape.inside import run_python, sandbox

OPTIONS: tuple[DeviceOption, ...] = ("gpu", "kvm", "fuse", "tun")
HOST_NODES = ("kvm", "fuse", "net/tun")

USE = """
import fcntl
for path in sys.argv[1:]:
    held = os.open(path, os.O_RDWR)
    if path == "/dev/kvm": tell(fcntl.ioctl(held, 0xAE00))  # KVM_GET_API_VERSION
"""

# Memory, ports, disks, the log, terminals of the machine, loop devices, the devices of others.
NUMBERS = """
import stat
others = [(stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 1, 4), (stat.S_IFCHR, 1, 11), (stat.S_IFCHR, 4, 1),
          (stat.S_IFCHR, 10, 237), (stat.S_IFCHR, 10, 232), (stat.S_IFCHR, 10, 229),
          (stat.S_IFCHR, 226, 0), (stat.S_IFBLK, 8, 0), (stat.S_IFBLK, 254, 0), (stat.S_IFBLK, 7, 0)]
for place in (".", "/tmp", "/dev", "/dev/net", "/dev/shm", "/run", os.environ["HOME"]):
    for kind, major, minor in others:
        try:
            os.mknod(f"{place}/made", kind | 0o600, os.makedev(major, minor))
            tell("ESCAPE made", place, major, minor)
        except OSError as error: escape_if(error.errno not in (1, 2, 13, 30), place, error)
"""

CHANGE = """
for path in sys.argv[1:]:
    for name, change in {
        "mode": lambda: os.chmod(path, 0o666),
        "owner": lambda: os.chown(path, os.getuid(), 0),
        "times": lambda: os.utime(path),
        "remove": lambda: os.remove(path),
        "rename": lambda: os.rename(path, path + "x"),
        "link": lambda: os.link(path, "/tmp/linked"),
    }.items():
        try: change(); tell("ESCAPE", name, path)
        except OSError as error: tell(name, error.errno)
"""

POWER = """
import fcntl, struct
if "/dev/net/tun" in sys.argv:
    held = os.open("/dev/net/tun", os.O_RDWR)
    try: fcntl.ioctl(held, 0x400454CA, struct.pack("16sH22x", b"esc0", 1)); tell("ESCAPE tun")
    except OSError as error: tell(error.errno)
if "/dev/fuse" in sys.argv:
    held = os.open("/dev/fuse", os.O_RDWR)
    text = f"fd={held},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    attempt("mount", b"escape", b"/tmp", b"fuse", 0, text)
"""


def available() -> tuple[DeviceOption, ...]:
    """The devices that this user can be given here."""
    found: list[DeviceOption] = []
    for option in OPTIONS:
        try:
            resolve_devices(Policy(devices=(option,)))
        except PolicyError:
            continue
        found.append(option)
    return tuple(found)


@pytest.fixture
def nodes() -> dict[DeviceOption, list[str]]:
    """The nodes of each device that this user can be given."""
    found = {
        option: [node.path for node in resolve_devices(Policy(devices=(option,)))]
        for option in available()
    }
    if not found:
        pytest.skip("this machine has no device that this user may open")
    return found


async def test_named_devices_work_alone(nodes: dict[DeviceOption, list[str]]) -> None:
    paths = [path for found in nodes.values() for path in found]
    async with sandbox(Policy(devices=tuple(nodes))) as session:
        said = (await run_python(session, USE, *paths)).stdout.split()
        assert said == ([b"12"] if "kvm" in nodes else [])
        for code in (NUMBERS, CHANGE, POWER):
            result = await run_python(session, code, *paths)
            assert b"ESCAPE" not in result.stdout, result
        listed = await session.exec("find /dev ! -type d ! -type l -printf '%p\\n'")
        usual = {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}
        assert set(listed.stdout.decode().split()) == {*usual, "/dev/pts/ptmx", *paths}


@pytest.mark.parametrize("given", ["", "kvm"])
async def test_one_device_is_no_other(given: str, nodes: dict[DeviceOption, list[str]]) -> None:
    devices = tuple(option for option in nodes if option == given)
    shown = {path for option in devices for path in nodes[option]}
    async with sandbox(Policy(devices=devices)) as session:
        for name in HOST_NODES:
            found = (await session.exec(f"test -e /dev/{name}")).ok()
            assert found == (f"/dev/{name}" in shown), name


@pytest.mark.root
@pytest.mark.skipif(not os.path.exists("/dev/kvm"), reason="needs /dev/kvm")
async def test_node_is_of_the_session_alone() -> None:
    before = os.stat("/dev/kvm")
    async with sandbox(Policy(devices=("kvm",))) as session:
        found = await session.exec("stat -c '%U %G %a %t:%T' /dev/kvm")
        assert found.stdout == b"agent agent 600 a:e8\n"
    after = os.stat("/dev/kvm")
    assert (before.st_mode, before.st_uid, before.st_gid) == (
        after.st_mode, after.st_uid, after.st_gid,
    )  # fmt: skip


@pytest.fixture
def missing() -> DeviceOption:
    """A device that this user can't be given."""
    had = available()
    for option in OPTIONS:
        if option not in had:
            return option
    pytest.skip("this machine has every device")


async def test_missing_device_refuses_the_start(missing: DeviceOption) -> None:
    with pytest.raises(PolicyError, match="To fix it: ") as raised:
        async with sandbox(Policy(devices=(missing,))):
            pytest.fail("it started")
    assert raised.value.context["field"] == "devices"
