"""Attacks on namespaces, privileges and rarely used parts of the kernel."""

from __future__ import annotations

from typing import Final

from tests.escape.attacks import python, shell

__all__ = ["NAMESPACES", "PRIVILEGES", "SURFACE"]

ROOT: Final = "root"
USERNS: Final = "user namespaces for everybody"

KINDS: Final = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
USER: Final = KINDS["user"]
IN_OWN: Final = "unshare -Ur -m sh -c"

NAMESPACES: Final = (
    *(python(f"unshare_{kind}", f"attempt('unshare', {USER | flag})", needs=USERNS)
      for kind, flag in {**KINDS, "time": 0x80}.items()),
    *(python(f"unshare_{kind}_alone", f"attempt('unshare', {flag})", needs=ROOT)
      for kind, flag in KINDS.items() if kind != "user"),
    *(python(f"clone_{kind}", "\n".join((
        f"child = call('clone', {USER | flag | 17}, 0, 0, 0, 0)",
        "if child == 0: os._exit(0)",
        "escape_if(child > 0 and os.waitpid(child, 0)[1] == 0)",
    )), needs=USERNS) for kind, flag in KINDS.items()),
    python("clone3", "\n".join((
        "import struct",
        f"words = struct.pack('8Q', {USER}, 0, 0, 0, 17, 0, 0, 0)",
        "child = call('clone3', words, len(words))",
        "if child == 0: os._exit(0)",
        "escape_if(child > 0)",
    )), needs=USERNS),
    shell("unshare_program", "unshare -Ur true && echo ESCAPE", needs=USERNS),
    shell("root_in_own", "unshare -Ur id -u | grep -qx 0 && echo ESCAPE", needs=USERNS),
    python("setns", "reach('setns', -1, 0)", needs=""),
    shell("setns_victim", "nsenter -t $BAIT_VICTIM -m true && echo ESCAPE", needs=ROOT),
    shell("setns_first", "nsenter -t 1 -m -u -i -n true && echo ESCAPE", needs=ROOT),
    shell("mount_tmpfs", f"mkdir m; {IN_OWN} 'mount -t tmpfs x m && echo ESCAPE'", needs=USERNS),
    shell("mount_bind", f"mkdir m; {IN_OWN} 'mount --rbind / m && echo ESCAPE'", needs=USERNS),
    shell("remount", f"{IN_OWN} 'mount -o remount,bind,rw / && echo ESCAPE'", needs=USERNS),
    shell("unmount", f"{IN_OWN} 'mount -t tmpfs x /mnt; umount /mnt && echo ESCAPE'",
          needs=USERNS),
    shell("pivot", f"mkdir m; {IN_OWN} 'mount --rbind . m; cd m; pivot_root . . && echo ESCAPE'",
          needs=USERNS),
    shell("chroot", f"{IN_OWN} 'chroot / /bin/true && echo ESCAPE'", needs=USERNS),
    python("mount_call", "reach('mount', b'x', b'nowhere', b'tmpfs', 0, None)"),
    python("umount_call", "reach('umount2', b'nowhere', 0)"),
    python("chroot_call", "attempt('chroot', b'.')", needs=ROOT),
    python("pivot_call", "reach('pivot_root', b'nowhere', b'nowhere')", needs=ROOT),
    python("open_tree", "attempt('open_tree', -100, b'/', 0)"),
    python("clone_tree", "attempt('open_tree', -100, b'/', 1 | 0x8000)", needs=ROOT),
    python("move_mount", "reach('move_mount', -1, b'', -1, b'', 0)", needs=ROOT),
    python("fsopen", "attempt('fsopen', b'tmpfs', 0)", needs=ROOT),
    python("fsconfig", "reach('fsconfig', -1, 99, None, None, 0)"),
    python("fsmount", "reach('fsmount', -1, 0, 0)", needs=ROOT),
    python("fspick", "reach('fspick', -100, b'nowhere', 0)", needs=ROOT),
    python("mount_setattr", "reach('mount_setattr', -1, b'', 0, None, 0)"),
    python("open_by_handle", "reach('open_by_handle_at', -1, None, 0)", needs=ROOT),
    python("quota", "reach('quotactl', 0x80000700, None, 0, None)", needs="a kernel with quotas"),
    python("quota_descriptor", "reach('quotactl_fd', -1, 0x80000700, 0, None)",
           needs="a kernel with quotas"),
)  # fmt: skip

PRIVILEGES: Final = (
    python("trace_me", "attempt('ptrace', 0, 0, 0, 0)"),
    python("trace_child", "\n".join((
        "child = os.fork()",
        "if child == 0:",
        "    import signal; signal.pause()",
        "attempt('ptrace', 0x4206, child, 0, 0)",
        "os.kill(child, 9)",
    ))),
    python("trace_victim", "\n".join((
        "victim = int(os.environ['BAIT_VICTIM'])",
        "attempt('ptrace', 0x4206, victim, 0, 0)",
    )), needs="to be allowed to trace other processes of its user"),
    python("write_memory", "reach('process_vm_writev', os.getpid(), None, 0, None, 0, 0)"),
    python("become_root", "os.setuid(0); tell('ESCAPE')", needs=ROOT),
    python("become_other", "os.setresuid(12345, 12345, 12345); tell('ESCAPE')", needs=ROOT),
    python("other_groups", "os.setgroups([0]); tell('ESCAPE')", needs=ROOT),
    python("other_limits", "reach('prlimit64', os.getppid(), 7, None, None)"),
    python("more_processes", "\n".join((
        "import resource",
        "limit = resource.getrlimit(resource.RLIMIT_NPROC)[1]",
        "resource.setrlimit(resource.RLIMIT_NPROC, (10**6, 10**6))",
        "escape_if(limit != resource.RLIM_INFINITY)",
    )), needs="root with a limit on processes"),
    python("higher_priority", "os.setpriority(os.PRIO_PROCESS, 0, -5); tell('ESCAPE')",
           needs=ROOT),
    python("real_time", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); "
           "tell('ESCAPE')", needs=ROOT),
    shell("never_killed", "echo -900 > /proc/self/oom_score_adj && echo ESCAPE", needs=ROOT),
    shell("machine_settings", "for f in kernel/core_pattern kernel/hostname kernel/modprobe"
          " vm/drop_caches fs/file-max net/ipv4/ip_forward; do"
          " (: >> /proc/sys/$f) && echo ESCAPE $f; done", needs=ROOT),
    python("any_setting", "\n".join((
        "for place, _, names in os.walk('/proc/sys'):",
        "    for name in names:",
        "        escape_if(os.access(f'{place}/{name}', os.W_OK), name)",
    )), needs=ROOT),
    python("any_kernel_file", "\n".join((
        "for name in os.listdir('/proc'):",
        "    path = f'/proc/{name}'",
        "    if os.path.isfile(path) and not name.isdigit():",
        "        try: os.close(os.open(path, os.O_WRONLY)); tell('ESCAPE', name)",
        "        except OSError: pass",
    )), needs=ROOT),
    shell("system_request", "(: >> /proc/sysrq-trigger) && echo ESCAPE",
          needs="root and /proc/sysrq-trigger"),
    shell("control_groups", "find /sys/fs/cgroup -maxdepth 3 -name '*.procs' -writable"
          " | grep . && echo ESCAPE", needs="root, or a delegated control group"),
    shell("release_agent", "(: >> /sys/fs/cgroup/memory/release_agent) && echo ESCAPE",
          needs="root and control groups of version 1"),
    shell("kernel_objects", "find /sys/kernel /sys/module -maxdepth 2 -writable | grep -q . "
          "&& echo ESCAPE", needs=ROOT),
    shell("module_list", "ls /sys/module | grep . && echo ESCAPE"),
)  # fmt: skip

SURFACE: Final = (
    python("keyring", "reach('keyctl', 0, -3, 1)", needs="a kernel with keyrings"),
    python("add_key", "attempt('add_key', b'user', b'escape', b'x', 1, -2)",
           needs="a kernel with keyrings"),
    python("request_key", "reach('request_key', b'user', b'nothing', None, -2)",
           needs="a kernel with keyrings"),
    python("bpf", "reach('bpf', 999, None, 0)", needs="a kernel with bpf for this user"),
    python("bpf_map", "reach('bpf', 0, b'\\2' + bytes(71), 72)",
           needs="a kernel with bpf for this user"),
    python("perf_event", "reach('perf_event_open', None, 0, -1, -1, 0)",
           needs="a kernel with perf"),
    python("userfault", "reach('userfaultfd', 1)", needs="a kernel with userfaultfd"),
    python("uring_enter", "reach('io_uring_enter', -1, 0, 0, 0, None, 0)",
           needs="a kernel with io_uring"),
    python("uring_register", "reach('io_uring_register', -1, 0, None, 0)",
           needs="a kernel with io_uring"),
    python("personality", "attempt('personality', 0x0040000)"),
    python("local_descriptors", "reach('modify_ldt', 0, None, 0)", needs="x86_64 with modify_ldt"),
    python("io_level", "reach('iopl', 0)", needs="x86_64"),
    python("io_ports", "reach('ioperm', 0, 0, 0)", needs="x86_64 with ioperm"),
    python("load_kernel", "reach('kexec_load', 0, 99, None, 1 << 40)", needs="root and kexec"),
    python("load_kernel_file", "reach('kexec_file_load', -1, -1, 0, None, 1 << 40)",
           needs="root and kexec"),
    python("load_module", "reach('init_module', None, 0, b'')", needs="root and modules"),
    python("load_module_file", "reach('finit_module', -1, b'', 0)", needs="root and modules"),
    python("unload_module", "reach('delete_module', b'no-such-module', 0x800)",
           needs="root and modules"),
    python("swap", "reach('swapon', b'nowhere', 0)", needs="root and swap"),
    python("swap_off", "reach('swapoff', b'nowhere')", needs="root and swap"),
    python("accounting", "reach('acct', b'nowhere')", needs="root and accounting"),
    python("reboot", "reach('reboot', 1, 2, 3, None)", needs=ROOT),
    python("kernel_log", "reach('syslog', 10, None, 0)", needs="a log that is open to this user"),
    python("set_time", "reach('settimeofday', None, None)", needs=ROOT),
    python("set_clock", "reach('clock_settime', 99, None)"),
    python("adjust_time", "reach('adjtimex', None)"),
    python("adjust_clock", "reach('clock_adjtime', 0, None)"),
    *(
        python(f"socket_{name}", "\n".join((
            "import socket",
            f"for family, protocol in {families}:",
            "    for kind in (1, 2, 3, 5):",
            "        try:",
            "            socket.socket(family, kind, protocol)",
            "            tell('ESCAPE', family, protocol)",
            "        except OSError as error:",
            "            tell(family, protocol, error)",
        )), needs=needs)
        for name, needs, families in (
            ("packet", ROOT, ((17, 3), (44, 0))),
            ("vsock", "a kernel with vsock", ((40, 0),)),
            ("netlink", "", tuple((16, protocol) for protocol in range(1, 23))),
            ("rare", "a kernel with a rare family",
             tuple((f, p) for f in range(3, 46) if f not in {10, 16, 17, 40, 44}
                   for p in (0, 1, 2))),
        )
    ),
    python("raw_socket", "\n".join((
        "import socket",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "tell('ESCAPE')",
    )), needs=ROOT),
)  # fmt: skip
