"""Attacks that read what is the host's: files, other processes, the environment, the kernel."""

from __future__ import annotations

from typing import Final

from tests.escape.attacks import Attack, python, shell
from tests.escape.bait import HOST_SECRETS

__all__ = ["READING"]


def steal(name: str, path: str, *, needs: str = "") -> Attack:
    """Read the secret in a file, whose path the shell expands."""
    return shell(name, f'grep -aq TOPSECRET {path} && echo "ESCAPE read it"', needs=needs)


PTRACE: Final = "to be allowed to trace other processes of its user"
ROOT: Final = "root"

FILES: Final = (
    steal("plain_path", '"$BAIT_HOME/.ssh/id_rsa"'),
    steal("parent_directory", "../home/.netrc"),
    steal("beside_the_workspace", '"$BAIT_BESIDE/secret"'),
    steal("sibling_session", '"$BAIT_SIBLING/secret"'),
    steal("dots_from_the_root", '"/usr/bin/../..$BAIT_HOME/.aws/credentials"'),
    steal("proc_self_root", '"/proc/self/root$BAIT_HOME/.ssh/id_rsa"'),
    steal("proc_thread_root", '"/proc/thread-self/root$BAIT_HOME/.ssh/id_rsa"'),
    steal("proc_self_cwd", "/proc/self/cwd/../home/data"),
    steal("proc_first_root", '"/proc/1/root$BAIT_HOME/data"', needs=ROOT),
    steal("link_of_the_host", "out/.ssh/id_rsa"),
    steal("shared_tmp", '"$BAIT_TMP"'),
    steal("shared_var_tmp", '"$BAIT_VAR_TMP"'),
    steal("shared_memory_file", '"$BAIT_SHM"'),
    shell("new_link", 'ln -s "$BAIT_HOME" l && grep -q TOPSECRET l/data && echo ESCAPE'),
    shell("new_hard_link", 'ln "$BAIT_HOME/data" h && grep -q TOPSECRET h && echo ESCAPE'),
    shell("list_parent", "ls -A .. | grep -q home && echo ESCAPE"),
    shell("list_tmp", 'ls -A /tmp | grep -q "$(basename "$BAIT_TMP")" && echo ESCAPE'),
    shell("file_is_there", 'test -e "$BAIT_HOME/.ssh/id_rsa" && echo ESCAPE'),
    shell("change_directory", 'cd "$BAIT_HOME" && echo ESCAPE'),
    shell("git_config", 'HOME="$BAIT_HOME" git config --global user.token && echo ESCAPE'),
    shell("git_include", 'git config -f "$BAIT_HOME/.gitconfig" -l && echo ESCAPE'),
    shell("archive_it", 'tar -cf t -C / ".$BAIT_HOME" && tar -tf t | grep rsa && echo ESCAPE'),
    shell("archive_behind_link", "tar -chf t out && tar -tf t | grep -q rsa && echo ESCAPE"),
    shell("copy_behind_link", "cp -rL out c && cat c/data && echo ESCAPE"),
    shell("find_behind_links", "find -L . -name id_rsa | grep -q . && echo ESCAPE"),
    shell("homes", 'for d in /root /home/*; do ls -A "$d" | grep -qE "^[.](ssh|bash|profile|config)"'
          " && echo ESCAPE; done", needs="a home that this user may list"),
    shell("shadow", "head -c 1 /etc/shadow | grep -q . && echo ESCAPE", needs=ROOT),
    shell("accounts", "grep -q ^daemon: /etc/passwd && echo ESCAPE", needs="the usual accounts"),
    shell("host_keys", "ls /etc/ssh && echo ESCAPE", needs="ssh"),
    shell("packages", "ls /var/lib/dpkg/status && echo ESCAPE", needs="Debian"),
    shell("logs", "ls -A /var/log | grep . && echo ESCAPE", needs="logs"),
    shell("run_directory", "ls -A /run | grep . && echo ESCAPE", needs="something in /run"),
    shell("boot_directory", "ls -A /boot | grep . && echo ESCAPE", needs="a kernel in /boot"),
    shell("machine_id", '[ "$(cat /etc/machine-id)" = "$BAIT_MACHINE" ] && echo ESCAPE',
          needs="/etc/machine-id"),
    shell("host_name", '[ "$(uname -n)" = "$BAIT_HOST" ] && echo ESCAPE'),
    shell("disks", "for d in /dev/[vs]da /dev/nvme0n1; do head -c 1 $d && echo ESCAPE; done",
          needs="root and a disk"),
    shell("more_devices", "for d in mem kmsg kvm fuse net/tun loop-control mapper/control; do"
          " (: < /dev/$d) && echo ESCAPE $d; done", needs=ROOT),
    shell("interfaces", "ls /sys/class/net && echo ESCAPE"),
    python("walk_up", "\n".join((
        "here = os.open('.', os.O_PATH)",
        "for _ in range(40): here = os.open('..', os.O_PATH, dir_fd=here)",
        "escape_if(os.access(os.environ['BAIT_HOME'].lstrip('/'), os.F_OK, dir_fd=here))",
    ))),
    python("handle_of_the_root", "\n".join((
        "# On ext4 the root is inode 2, and a handle of it opens it from any mount.",
        "handle = (8).to_bytes(4, 'little') + (1).to_bytes(4, 'little') + bytes((2,)) + bytes(7)",
        "escape_if(call('open_by_handle_at', os.open('.', os.O_RDONLY), handle, 0) >= 0)",
    )), needs="root, and a workspace on ext4"),
)  # fmt: skip

PROCESSES: Final = (
    steal("environ", '"/proc/$BAIT_VICTIM/environ"', needs=PTRACE),
    steal("process_cwd", '"/proc/$BAIT_VICTIM/cwd/secret"', needs=PTRACE),
    steal("process_root", '"/proc/$BAIT_VICTIM/root$BAIT_HOME/data"', needs=PTRACE),
    steal("process_descriptor", '"/proc/$BAIT_VICTIM/fd/$BAIT_DESCRIPTOR"', needs=PTRACE),
    steal("every_environ", "/proc/[0-9]*/environ", needs=PTRACE),
    steal("every_cwd", "/proc/[0-9]*/cwd/secret", needs=PTRACE),
    steal("every_root", '/proc/[0-9]*/root"$BAIT_HOME"/data', needs=PTRACE),
    shell("maps", 'grep -q . "/proc/$BAIT_VICTIM/maps" && echo ESCAPE', needs=PTRACE),
    shell("command_line", 'grep -aq host_program "/proc/$BAIT_VICTIM/cmdline" && echo ESCAPE'),
    shell("command_lines", "grep -aqs host_program[.] /proc/[0-9]*/cmdline && echo ESCAPE"),
    shell("process_list", "ps -ef | grep -q host_program[.] && echo ESCAPE"),
    python("memory_file", "\n".join((
        "with open(f'/proc/{os.environ[\"BAIT_VICTIM\"]}/mem', 'rb', 0) as memory:",
        "    memory.seek(int(os.environ['BAIT_ADDRESS']))",
        "    escape_if(b'TOPSECRET' in memory.read(9))",
    )), needs=PTRACE),
    python("memory_call", "\n".join((
        "room = ctypes.create_string_buffer(9)",
        "pair = ctypes.c_size_t * 2",
        "to = pair(ctypes.addressof(room), 9)",
        "there = pair(int(os.environ['BAIT_ADDRESS']), 9)",
        "call('process_vm_readv', int(os.environ['BAIT_VICTIM']),",
        "     ctypes.addressof(to), 1, ctypes.addressof(there), 1, 0)",
        "escape_if(room.raw == b'TOPSECRET')",
    )), needs=PTRACE),
    python("take_descriptor", "\n".join((
        "process = call('pidfd_open', int(os.environ['BAIT_VICTIM']), 0)",
        "taken = call('pidfd_getfd', process, int(os.environ['BAIT_DESCRIPTOR']), 0)",
        "escape_if(taken >= 0)",
    )), needs=PTRACE),
    python("signal_it", "os.kill(int(os.environ['BAIT_VICTIM']), 0); tell('ESCAPE')"),
    python("own_memory_by_call", "\n".join((
        "room, secret = ctypes.create_string_buffer(4), ctypes.create_string_buffer(b'text')",
        "pair = ctypes.c_size_t * 2",
        "to, there = pair(ctypes.addressof(room), 4), pair(ctypes.addressof(secret), 4)",
        "call('process_vm_readv', os.getpid(),",
        "     ctypes.addressof(to), 1, ctypes.addressof(there), 1, 0)",
        "escape_if(room.raw == b'text')",
    ))),
)  # fmt: skip

ENVIRONMENT: Final = (
    *(shell(f"variable_{name.lower()}", f"printenv {name} && echo ESCAPE")
      for name in HOST_SECRETS),
    shell("any_variable", "env | grep -q TOPSECRET && echo ESCAPE"),
    steal("own_environ", "/proc/self/environ"),
)  # fmt: skip

KERNEL: Final = (
    shell("kernel_memory", "head -c 1 /proc/kcore | grep -aq . && echo ESCAPE",
          needs="root and /proc/kcore"),
    shell("kernel_addresses", "grep -v '^0000000000000000' /proc/kallsyms && echo ESCAPE",
          needs="root and /proc/kallsyms"),
    shell("kernel_log", "dmesg && echo ESCAPE", needs="root, or a log that is open to all"),
    shell("kernel_timers", "grep -q . /proc/timer_list && echo ESCAPE",
          needs="root and /proc/timer_list"),
    shell("page_flags", "head -c 8 /proc/kpageflags | grep -aq . && echo ESCAPE",
          needs="root and /proc/kpageflags"),
    shell("keys", "grep -q . /proc/keys /proc/key-users && echo ESCAPE", needs="/proc/keys"),
    shell("larger_cores", "ulimit -c 1000 && echo ESCAPE", needs="a limit that is not lower"),
)  # fmt: skip

READING: Final = (*FILES, *PROCESSES, *ENVIRONMENT, *KERNEL)
