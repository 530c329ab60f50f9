"""What a Seatbelt profile lets through whatever the policy says, as data, each with its reason."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = [
    "DEVICES",
    "LINKS",
    "MACHINE_FACTS",
    "RESOLVER_SOCKET",
    "SERVICES",
    "SYSTEM_FILES",
    "SYSTEM_TREES",
    "Service",
    "SystemPath",
]


class Service(NamedTuple):
    """A Mach service that may be looked up.

    Attributes:
        name: as launchd registers it.
        reason: what does not work without it.
        network: whether it is of use only with a network.
    """

    name: str
    reason: str
    network: bool = False


SERVICES: Final = (
    Service("com.apple.system.opendirectoryd.libinfo", "names of users: getpwuid(3), id, ssh"),
    Service("com.apple.system.opendirectoryd.membership", "groups of a user: id"),
    Service("com.apple.SystemConfiguration.configd", "proxies and name servers", network=True),
    Service("com.apple.SystemConfiguration.DNSConfiguration", "name servers", network=True),
    Service("com.apple.trustd.agent", "checking certificates, without keys", network=True),
)
"""Left out on purpose: LaunchServices, ``appleeventsd`` and ``launchd``'s own (each starts programs
outside the wall), ``SecurityServer`` (keychains), the pasteboard, the window server, ``tccd``,
``cfprefsd`` (settings of all programs), and ``diskarbitrationd`` (mounts)."""


class SystemPath(NamedTuple):
    """A path of the system, with what reads it."""

    path: str
    reason: str


SYSTEM_TREES: Final = (
    SystemPath("/bin", "programs"),
    SystemPath("/sbin", "programs"),
    SystemPath("/usr/bin", "programs"),
    SystemPath("/usr/lib", "libraries, and the dynamic linker"),
    SystemPath("/usr/libexec", "programs that programs start"),
    SystemPath("/usr/sbin", "programs"),
    SystemPath("/usr/share", "time zones, terminals, locales"),
    # Not /System whole: all of the users' files have a second name in /System/Volumes/Data.
    SystemPath("/System/Cryptexes", "libraries that are updated apart"),
    SystemPath("/System/Library", "frameworks"),
    SystemPath("/System/Volumes/Preboot/Cryptexes", "the linker's cache of libraries"),
    SystemPath("/Library/Apple", "frameworks that are updated apart"),
    SystemPath("/Library/Developer/CommandLineTools", "compilers and git, which /usr/bin starts"),
    SystemPath("/private/etc/ssl", "certificates"),
    SystemPath("/private/var/db/dyld", "the linker's cache, before macOS 13"),
    SystemPath("/private/var/db/timezone", "the local time"),
)
"""Trees that every command may read, and whose programs it may run."""

SYSTEM_FILES: Final = (
    SystemPath("/", "the linker looks at the root directory"),
    SystemPath("/private/etc/group", "names of groups"),
    SystemPath("/private/etc/localtime", "the local time"),
    SystemPath("/private/etc/passwd", "names of the system's users"),
    SystemPath("/private/etc/protocols", "names of protocols"),
    SystemPath("/private/etc/services", "names of ports"),
    SystemPath("/private/etc/shells", "names of shells"),
    SystemPath("/private/var/db/xcode_select_link", "where the compilers are"),
    SystemPath("/private/var/select/developer_dir", "where the compilers are"),
    SystemPath("/private/var/select/sh", "which shell /bin/sh is"),
)
"""Single files that every command may read."""

LINKS: Final = (
    "/etc",
    "/tmp",  # noqa: S108  # a name that rules are about; nothing is written there
    "/var",
    "/private",
    "/private/etc",
    "/private/var",
    "/Library",
    "/usr",
)
"""Symlinks and directories that are passed on the way; what is in them does not show."""

DEVICES: Final = (
    ("/dev/fd", "read"),
    ("/dev/null", "write"),
    ("/dev/random", "read"),
    ("/dev/stderr", "write"),
    ("/dev/stdin", "read"),
    ("/dev/stdout", "write"),
    ("/dev/urandom", "read"),
    ("/dev/zero", "write"),
)
"""Devices, and whether they may be written to."""

MACHINE_FACTS: Final = (
    "hw.activecpu",
    "hw.byteorder",
    "hw.cachelinesize",
    "hw.cpufamily",
    "hw.cputype",
    "hw.logicalcpu",
    "hw.logicalcpu_max",
    "hw.machine",
    "hw.memsize",
    "hw.ncpu",
    "hw.nperflevels",
    "hw.packages",
    "hw.pagesize",
    "hw.pagesize_compat",
    "hw.physicalcpu",
    "hw.physicalcpu_max",
    "kern.argmax",
    "kern.hostname",
    "kern.maxfilesperproc",
    "kern.osproductversion",
    "kern.osrelease",
    "kern.ostype",
    "kern.osversion",
    "kern.secure_kernel",
    "kern.usrstack64",
    "kern.version",
    "sysctl.proc_cputype",
    "vm.loadavg",
)
"""What sysctl(3) may be asked for: the machine, not its processes or its network."""

RESOLVER_SOCKET: Final = "/private/var/run/mDNSResponder"
"""Where getaddrinfo(3) asks for names."""
