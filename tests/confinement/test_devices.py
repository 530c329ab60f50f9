"""Devices of a policy: what a plan shows of them, and who refuses them."""

from __future__ import annotations

import os

import pytest

from sandyard.confinement import plan_session
from sandyard.confinement.explaining import explain_path
from sandyard.confinement.explanation import Enforced
from sandyard.errors import PolicyError
from sandyard.plan import Bind, Device, LaunchPlan, Symlink
from sandyard.platform import DeviceNode, HostFacts, device_option, resolve_devices
from sandyard.policy import DeviceOption, Policy
from tests.confinement.hosts import DEBIAN_ROOT, OLD_USER, WORKSPACE

KVM = DeviceNode("/dev/kvm", 10, 232)
PLACE = "/sys/devices/pci0000:00/0000:00:02.0/drm/renderD128"
GPU = DeviceNode(
    "/dev/dri/renderD128",
    226,
    128,
    "/sys/devices/pci0000:00/0000:00:02.0",
    (("/sys/dev/char/226:128", PLACE), ("/sys/class/drm/renderD128", PLACE)),
)


def planned(facts: HostFacts, *nodes: DeviceNode) -> LaunchPlan:
    return plan_session(Policy(), facts, WORKSPACE, (), devices=nodes)


def test_none_by_default() -> None:
    assert not any(isinstance(step, Device) for step in planned(DEBIAN_ROOT).steps)
    assert resolve_devices(Policy()) == ()


def test_root_gets_a_node_of_its_own() -> None:
    steps = set(planned(DEBIAN_ROOT, KVM).steps) - set(planned(DEBIAN_ROOT).steps)
    assert steps == {Device("/dev/kvm", 10, 232)}


def test_user_gets_the_node_of_the_host() -> None:
    steps = set(planned(OLD_USER, KVM).steps) - set(planned(OLD_USER).steps)
    assert steps == {Bind("/dev/kvm", "/dev/kvm", devices=True)}


def test_hardware_is_described_and_no_more() -> None:
    steps = set(planned(OLD_USER, GPU).steps) - set(planned(OLD_USER).steps)
    assert steps == {
        Bind("/dev/dri/renderD128", "/dev/dri/renderD128", devices=True),
        Bind("/sys/devices/pci0000:00/0000:00:02.0", "/sys/devices/pci0000:00/0000:00:02.0"),
        Symlink("/sys/dev/char/226:128", PLACE),
        Symlink("/sys/class/drm/renderD128", PLACE),
    }


def test_devices_come_after_their_directory() -> None:
    paths = [
        getattr(step, "target", getattr(step, "path", ""))
        for step in planned(DEBIAN_ROOT, KVM).steps
    ]
    assert paths.index("/dev") < paths.index("/dev/kvm")


@pytest.mark.parametrize("value", ["kvm", ("disk",), (1,), None, ("/dev/kvm",)])
def test_unknown_device_is_refused(value: object) -> None:
    with pytest.raises(PolicyError) as raised:
        Policy(devices=value)  # type: ignore[arg-type]
    assert raised.value.context["field"] == "devices"


def test_order_does_not_matter() -> None:
    assert Policy(devices=("tun", "gpu")) == Policy(devices=("gpu", "tun", "gpu"))


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("/dev/kvm", "kvm"),
        ("/dev/fuse", "fuse"),
        ("/dev/net/tun", "tun"),
        ("/dev/dri/renderD129", "gpu"),
        ("/dev/nvidia0", "gpu"),
        ("/dev/kfd", "gpu"),
        ("/dev/dri/card0", None),
        ("/dev/nvidia-modeset", None),
        ("/dev/nvidia-caps", None),
        ("/dev/sda", None),
        ("/dev/mem", None),
    ],
)
def test_device_has_a_name(path: str, option: str | None) -> None:
    assert device_option(path) == option


def test_device_is_explained() -> None:
    def told(policy: Policy, path: str) -> tuple[str, str, str | None]:
        plan = plan_session(
            policy, DEBIAN_ROOT, WORKSPACE, (), devices=(KVM,) * len(policy.devices)
        )
        found = explain_path(path, Enforced(policy, plan, "x86_64", "/tmp/ws"))
        return found.access, found.rule, found.grant

    assert told(Policy(), "/dev/kvm") == (
        "none", "not shown: /dev is the kernel's", "Policy(devices=('kvm',))",
    )  # fmt: skip
    given = Policy(devices=("kvm",))
    assert told(given, "/dev/kvm") == ("write", "Policy.devices names it", None)
    assert told(given, "/dev/null") == ("write", "a device that every session has", None)
    assert told(given, "/dev/sda") == ("none", "not shown: /dev is the kernel's", None)


@pytest.mark.parametrize("option", ["gpu", "kvm", "fuse", "tun"])
def test_host_tells_what_it_has(option: DeviceOption) -> None:
    try:
        nodes = resolve_devices(Policy(devices=(option,)))
    except PolicyError as error:
        refusal, nodes = error, ()
        told = (refusal.context["field"], "To fix it: " in refusal.message)
    else:
        told = ("devices", bool(nodes))
    assert told == ("devices", True)
    for node in nodes:
        assert device_option(node.path) == option
        assert os.stat(node.path).st_rdev == os.makedev(node.major, node.minor)
