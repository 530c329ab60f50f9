"""What the doctor's canaries showed: each attempt beside the same attempt without a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from sandyard.confinement.doctor_values import DoctorCanary

if TYPE_CHECKING:
    from sandyard.policy import Dimension

__all__ = ["CANARIES", "Findings", "judge_canaries", "parse_findings"]

Findings = Mapping[str, tuple[bool, str]]
"""Of each attempt whether it worked, and what was said."""

CANARIES: Final[dict[str, tuple[Dimension | Literal[""], str]]] = {
    "read_file": ("read", "read a private file of yours"),
    "read_shadow": ("read", "read the host's /etc/shadow"),
    "write_file": ("write", "write a file outside the workspace"),
    "see_process": ("processes", "see a process of the host"),
    "connect_port": ("network", "connect to a port of the host's loopback"),
    "connect_abstract": ("ipc", "connect to an abstract Unix socket of the host"),
    "connect_path": ("ipc", "connect to a Unix socket of the host by its path"),
    "trace_process": ("syscalls", "trace a process, by a call that a filter refuses"),
    "open_many": ("resources", "open more files than a session may"),
    "see_variable": ("", "see a variable of your environment"),
}
"""The attempts: what of the wall they try, and in words."""


def parse_findings(said: bytes) -> Findings:
    """Read what the canaries printed; what can't be read was not attempted."""
    try:
        found = json.loads(said)
        return {str(name): (bool(reached), str(words)) for name, (reached, words) in found.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def judge_canaries(
    inside: Findings, outside: Findings, *, root: bool, why: str = ""
) -> tuple[DoctorCanary, ...]:
    """Judge each attempt.

    Args:
        inside: what they said in the session.
        outside: what the same said without one.
        root: whether the caller is root; nobody else reads /etc/shadow, so others don't try.
        why: why nothing was attempted inside, if so.
    """
    missing = (False, why or "it was not attempted")
    return tuple(
        DoctorCanary(
            key=key,
            dimension=dimension,
            purpose=purpose,
            state=_state(key, inside, outside),
            inside=inside.get(key, missing)[1],
            outside=outside.get(key, (False, "it was not attempted"))[1],
        )
        for key, (dimension, purpose) in CANARIES.items()
        if root or key != "read_shadow"
    )


def _state(
    key: str, inside: Findings, outside: Findings
) -> Literal["held", "broken", "uncontrolled", "unknown"]:
    if key not in inside:
        return "unknown"
    if inside[key][0]:
        return "broken"
    return "held" if outside.get(key, (False, ""))[0] else "uncontrolled"
