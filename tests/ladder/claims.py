"""What each rung claims of the attacks and of honest work: all holds, except what is named here."""

from __future__ import annotations

from typing import Final

from tests.escape.attacks import Attack
from tests.escape.doors import LOCAL, NETWORK, TERMINALS
from tests.escape.granted import GRANTED
from tests.escape.kernel import NAMESPACES, PRIVILEGES, SURFACE
from tests.escape.reading import READING
from tests.escape.writing import SETTING_BITS, WRITING

__all__ = ["ATTACKS", "CHANGES", "IDLE", "METADATA", "SAMPLE"]

CLASSES: Final = {
    "reading": READING,
    "writing": WRITING,
    "bits": SETTING_BITS,
    "namespaces": NAMESPACES,
    "privileges": PRIVILEGES,
    "surface": SURFACE,
    "local": LOCAL,
    "network": NETWORK,
    "terminals": TERMINALS,
    "granted": GRANTED,
}

ATTACKS: Final[dict[str, Attack]] = {
    f"{kind}-{attack.name}": attack for kind, attacks in CLASSES.items() for attack in attacks
}

METADATA: Final = frozenset(
    {
        "privileges-kernel_objects",  # access(2) on a path; nothing is opened
        "reading-change_directory",
        "reading-file_is_there",
        "reading-host_name",
        "reading-logs",
        "reading-packages",  # a file's name and size, by its path
        "reading-walk_up",
    }
)
"""What Landlock alone does not hold: that something is there, and whose and how large it is."""

CHANGES: Final = frozenset(
    {
        "granted-change_mode",
        "writing-attribute",
        "writing-change_mode",
        "writing-change_mode_behind_link",
        # Of a user who owns the device nodes, such as root that has become an ordinary user.
        "writing-mode_of_a_device",
        "writing-times_of_a_device",
    }
)
"""What it does not hold besides for an ordinary user: metadata of his own files."""

IDLE: Final[dict[str, frozenset[str]]] = {
    "full": frozenset(),
    "full_without_proc": frozenset({"own_memory_score", "processes", "standard_streams"}),
    "landlock_seccomp": frozenset(
        {
            "database",  # of its two one lies in /tmp
            "key",  # there is no account of the user inside
            "loopback",
            "loopback6",
            "owner",
            "own_memory_score",
            "pool",
            "processes",
            "shared_memory",
            "sort",  # it writes to /tmp by name
            "terminal",
            "unix_sockets",
        }
    ),
}
"""Work that is not done on a rung: it needs /proc, /tmp, a loopback, shared memory or terminals."""

SAMPLE: Final = (
    "reading-plain_path",
    "reading-proc_self_root",
    "reading-link_of_the_host",
    "reading-shared_tmp",
    "reading-new_hard_link",
    "reading-list_parent",
    "reading-list_tmp",
    "reading-file_is_there",
    "reading-every_environ",
    "reading-command_lines",
    "reading-memory_call",
    "reading-signal_it",
    "reading-any_variable",
    "writing-append",
    "writing-overwrite_behind_link",
    "writing-make_directory",
    "writing-change_mode",
    "writing-remove_tree",
    "writing-move_out",
    "writing-hard_link_and_write",
    "writing-truncate",
    "writing-attribute",
    "bits-setuid_by_chmod",
    "namespaces-unshare_user",
    "privileges-trace_child",
    "granted-change_mode",
)
"""A few of each kind, with those that get through; all are made in long runs."""
