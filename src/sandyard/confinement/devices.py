"""Devices inside: the nodes that a policy names, and nothing else of the hardware."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sandyard.plan import Bind, Device, MountStep, Symlink

if TYPE_CHECKING:
    from sandyard.platform import DeviceNode

__all__ = ["add_devices"]


def add_devices(steps: dict[str, MountStep], nodes: Iterable[DeviceNode], *, leased: bool) -> None:
    """Put devices where the host has them.

    Args:
        steps: what stands so far, by path.
        nodes: what the policy names, as found on the host.
        leased: True for a session with an identity of its own, to whom the host's nodes are closed:
            it gets nodes of its own. Otherwise the host's are shown, which the caller may open.
    """
    for node in nodes:
        steps[node.path] = (
            Device(node.path, node.major, node.minor)
            if leased
            else Bind(node.path, node.path, devices=True)
        )
        if node.tree is not None:
            steps[node.tree] = Bind(node.tree, node.tree)
        for path, target in node.links:
            steps[path] = Symlink(path, target)
