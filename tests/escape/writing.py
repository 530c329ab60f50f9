"""Attacks that write what is the host's, or leave in the workspace what is dangerous there."""

from __future__ import annotations

from typing import Final

from tests.escape.attacks import Attack, python, shell

__all__ = ["SETTING_BITS", "WRITING"]

ROOT: Final = "root"

WRITING: Final = (
    shell("append", 'echo x >> "$BAIT_HOME/.bashrc"'),
    shell("overwrite", 'echo x > "$BAIT_HOME/data"'),
    shell("overwrite_by_root_link", 'echo x > "/proc/self/root$BAIT_HOME/data"'),
    shell("overwrite_behind_link", "echo x > out/data"),
    shell("make_behind_link", "echo x > out/made"),
    shell("make_at_dangling_link", "echo x > dangling"),
    shell("make_beside", "echo x > ../beside/made"),
    shell("make_quietly", 'exec 2>/dev/null; echo x > "$BAIT_HOME/made"'),
    shell("make_directory", 'mkdir "$BAIT_HOME/made"'),
    shell("make_behind_new_link", 'ln -s "$BAIT_BESIDE" l; mkdir l/made'),
    shell("change_mode", 'chmod 777 "$BAIT_HOME/.ssh/id_rsa"'),
    shell("change_mode_behind_link", "chmod 600 out/.ssh/id_rsa"),
    shell("change_owner", 'chown 12345 "$BAIT_HOME/data" && chmod 600 out/data', needs=ROOT),
    shell("remove", 'rm -f "$BAIT_HOME/data"'),
    shell("remove_tree", 'rm -rf "$BAIT_HOME/victim"'),
    shell("remove_tree_behind_link", "rm -rf out/victim"),
    shell("move_out", 'echo x > moved && mv moved "$BAIT_BESIDE/moved"'),
    shell("move_in", 'mv "$BAIT_HOME/data" stolen'),
    shell("exchange", 'mv tracked "$BAIT_HOME/data"'),
    shell("link_out", 'ln -s x "$BAIT_HOME/made"'),
    shell("hard_link_out", 'ln tracked "$BAIT_BESIDE/made"'),
    shell("hard_link_and_write", 'ln "$BAIT_HOME/data" h && echo x > h'),
    shell("fifo_out", 'mkfifo "$BAIT_HOME/made"'),
    shell("unpack_out", "mkdir a && echo x > a/made && tar -cPf t --transform 's,a/,../beside/,'"
          " a/made && tar -xPf t"),
    shell("clone_out", 'git init -q "$BAIT_BESIDE/made"'),
    shell("write_tmp", 'echo x > "$BAIT_TMP"'),
    shell("write_var_tmp", 'echo x > "$BAIT_VAR_TMP"'),
    shell("write_shared_memory", 'echo x > "$BAIT_SHM"'),
    python("truncate", "os.truncate(os.environ['BAIT_HOME'] + '/data', 0)"),
    python("open_and_truncate",
           "os.open(os.environ['BAIT_HOME'] + '/data', os.O_RDONLY | os.O_TRUNC)"),
    python("from_a_directory", "\n".join((
        "there = os.open(os.environ['BAIT_HOME'], os.O_PATH)",
        "os.close(os.open('made', os.O_CREAT | os.O_WRONLY, dir_fd=there))",
    ))),
    python("attribute", "\n".join((
        "os.setxattr(os.environ['BAIT_HOME'] + '/data', 'user.x', b'1')",
        "tell('ESCAPE')",
    )), needs="a file system with user attributes"),
    shell("make_at_top", "mkdir /escape.$$ && echo ESCAPE && rmdir /escape.$$", needs=ROOT),
    *(
        shell(f"make_in{place.replace('/', '_')}",
              f"(: > {place}/escape.$$) && echo ESCAPE && rm {place}/escape.$$", needs=ROOT)
        for place in ("/etc", "/usr/bin", "/usr/lib", "/var/lib", "/root", "/boot", "/opt", "/dev")
    ),
    shell("open_hosts", "(: >> /etc/hosts) && echo ESCAPE", needs=ROOT),
    shell("beside_the_interpreter", 'd=$(dirname "$BAIT_PYTHON"); (: > "$d/escape.$$")'
          ' && echo ESCAPE && rm "$d/escape.$$"', needs="an interpreter of this user's"),
    shell("mode_of_a_device", "chmod 666 /dev/null && echo ESCAPE", needs=ROOT),
    shell("times_of_a_device", "touch -c -d @0 /dev/full && echo ESCAPE && touch /dev/full",
          needs=ROOT),
    shell("move_the_workspace", "mv ../workspace ../gone && mv ../gone ../workspace"
          " && echo ESCAPE"),
    shell("remove_the_workspace", "rm -rf ../workspace; test -e ../workspace || echo ESCAPE"),
    shell("mark_append_only", "chattr +a tracked && echo ESCAPE && chattr -a tracked",
          needs="root and ext4"),
)  # fmt: skip

FILE: Final = "open('f', 'w').close()\n"


def by_call(name: str, code: str, needs: str = "") -> Attack:
    """Leave a file with dangerous bits by one system call, and read back what the call left."""
    return python(name, f"os.umask(0)\n{FILE}{code}", needs=needs)


X86: Final = "an x86_64 machine, which still has this call"

SETTING_BITS: Final = (
    shell("setuid_by_chmod", "cp /bin/true f && chmod u+s f"),
    shell("setgid_by_chmod", "cp /bin/true f && chmod g+sx f"),
    shell("setgid_directory", "mkdir d && chmod g+s d"),
    shell("setuid_by_install", "install -m 4755 /bin/true f"),
    shell("setuid_by_mkdir", "mkdir -m 6755 d"),
    shell("setuid_by_unpacking", "cp /bin/true f && tar -cf t --mode=4755 f && rm f && tar -xpf t"),
    shell("setuid_by_linker", "umask 0; cp /bin/true f; chmod 4711 f; ln f g; mv f h"),
    by_call("chmod", "call('chmod', b'f', 0o4755)", X86),
    by_call("chmod_high_half", "call('chmod', b'f', 0xdead00006755)", X86),
    by_call("fchmod", "call('fchmod', os.open('f', os.O_RDONLY), 0o2755)"),
    by_call("fchmodat", "call('fchmodat', -100, b'f', 0o6755)"),
    by_call("fchmodat2", "call('fchmodat2', -100, b'f', 0o4755, 0)", "Linux 6.6"),
    by_call("fchmodat2_empty_path",
            "call('fchmodat2', os.open('f', os.O_PATH), b'', 0o4755, 0x1000)", "Linux 6.6"),
    by_call("fchmodat_by_proc",
            "call('fchmodat', -100, b'/proc/self/fd/%d' % os.open('f', os.O_RDONLY), 0o4755)"),
    by_call("creat", "call('creat', b'g', 0o4755)", X86),
    by_call("open", "call('open', b'g', os.O_CREAT | os.O_WRONLY, 0o4755)", X86),
    by_call("openat", "call('openat', -100, b'g', os.O_CREAT | os.O_WRONLY, 0o4755)"),
    by_call("openat_setgid", "call('openat', -100, b'g', os.O_CREAT | os.O_EXCL, 0o2755)"),
    by_call("openat_high_half",
            "call('openat', -100, b'g', 0x7700000000 | os.O_CREAT | os.O_WRONLY, 0x660000004755)"),
    by_call("openat2", "\n".join((
        "import struct",
        "how = struct.pack('QQQ', os.O_CREAT | os.O_WRONLY, 0o4755, 0)",
        "call('openat2', -100, b'g', how, len(how))",
    ))),
    by_call("unnamed_file", "\n".join((
        "made = call('openat', -100, b'.', os.O_TMPFILE | os.O_RDWR, 0o4755)",
        "call('linkat', -100, b'/proc/self/fd/%d' % made, -100, b'g', 0x400)",
    )), "a file system with unnamed files"),
    by_call("unnamed_file_later", "\n".join((
        "made = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o755)",
        "call('fchmod', made, 0o4755)",
        "call('linkat', -100, b'/proc/self/fd/%d' % made, -100, b'g', 0x400)",
    )), "a file system with unnamed files"),
    by_call("mkdir", "call('mkdir', b'd', 0o3755)\nos.chmod('d', 0o2755)", X86),
    by_call("mkdirat", "call('mkdirat', -100, b'd', 0o2755)\nos.chmod('d', 0o2755)"),
    by_call("mknod", "call('mknod', b'g', 0o104755, 0)", X86),
    by_call("mknodat", "call('mknodat', -100, b'g', 0o104755, 0)"),
    by_call("mknodat_fifo", "call('mknodat', -100, b'g', 0o014755, 0)"),
    by_call("socket", "\n".join((
        "import socket",
        "s = socket.socket(socket.AF_UNIX)",
        "call('fchmod', s.fileno(), 0o4755)",
        "s.bind('g')",
    )), "a kernel that keeps a socket's mode"),
    by_call("uring", "\n".join((
        "# A ring opens files without the calls that a filter sees.",
        "reach('io_uring_setup', 4, ctypes.create_string_buffer(120).raw)",
    )), "a kernel with io_uring"),
    by_call("null_device", "call('mknodat', -100, b'g', 0o020666, 0x103)", ROOT),
    by_call("disk", "call('mknodat', -100, b'g', 0o060600, os.makedev(254, 0))", ROOT),
    by_call("capabilities", "\n".join((
        "rights = bytes.fromhex('0100000202000000000000000000000000000000')",
        "os.setxattr('f', 'security.capability', rights)",
        "tell('ESCAPE')",
    )), ROOT),
    by_call("trusted_attribute", "os.setxattr('f', 'trusted.x', b'1'); tell('ESCAPE')", ROOT),
    by_call("owner", "os.chown('f', 0, 0); tell('ESCAPE')", ROOT),
    by_call("other_owner", "os.chown('f', 12345, 12345); tell('ESCAPE')", ROOT),
)  # fmt: skip
