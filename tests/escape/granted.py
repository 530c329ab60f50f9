"""Attacks on a directory that the policy grants for reading: writing to it, and leaving it."""

from __future__ import annotations

from typing import Final

from tests.escape.attacks import Attack, python, shell

__all__ = ["GRANTED"]

READS: Final = ("granted",)


def change(name: str, code: str) -> Attack:
    """A shell's way to write."""
    return shell(name, code, reads=READS)


def reopen(name: str, code: str) -> Attack:
    """Python's way to write."""
    return python(name, f"G = os.environ['BAIT_GRANTED']\n{code}", reads=READS)


GRANTED: Final = (
    change("write", 'echo x > "$BAIT_GRANTED/data"'),
    change("append", 'echo x >> "$BAIT_GRANTED/data"'),
    change("write_behind_link", "echo x > granted/data"),
    change("write_by_root_link", 'echo x > "/proc/self/root$BAIT_GRANTED/data"'),
    change("write_by_working_directory", 'cd "$BAIT_GRANTED/sub" && echo x > ../data'),
    change("make", 'echo x > "$BAIT_GRANTED/made"'),
    change("remove", 'rm -f "$BAIT_GRANTED/data"'),
    change("replace", 'echo x > new; mv new "$BAIT_GRANTED/data"'),
    change("move_away", 'mv "$BAIT_GRANTED/data" "$BAIT_GRANTED/gone"'),
    change("move_the_grant", 'mv "$BAIT_GRANTED" "$BAIT_GRANTED.gone"'),
    change("move_a_part", 'mv "$BAIT_GRANTED/sub" stolen'),
    change("hard_link_in", 'ln "$BAIT_GRANTED/data" h && echo x > h'),
    change("hard_link_beside", 'ln "$BAIT_GRANTED/data" "$BAIT_GRANTED/h"'),
    change("change_mode", 'chmod 777 "$BAIT_GRANTED/data"'),
    change("append_by_descriptor",
           'exec 3< "$BAIT_GRANTED/data"; echo x >> /proc/self/fd/3'),
    change("write_by_dev_fd", 'exec 3< "$BAIT_GRANTED/data"; echo x > /dev/fd/3'),
    change("cover", 'unshare -Urm mount --bind . "$BAIT_GRANTED" && echo x > "$BAIT_GRANTED/data"'
           '; unshare -Urm sh -c "mount -o remount,bind,rw $BAIT_GRANTED; echo x >'
           ' $BAIT_GRANTED/data"'),
    change("copy_over", 'cp --remove-destination tracked "$BAIT_GRANTED/data"'),
    change("edit_in_place", 'sed -i s/g/x/ "$BAIT_GRANTED/data"'),
    reopen("open_and_truncate", "os.open(G + '/data', os.O_RDWR | os.O_TRUNC)"),
    reopen("read_and_truncate", "os.open(G + '/data', os.O_RDONLY | os.O_TRUNC)"),
    reopen("truncate", "os.truncate(G + '/data', 0)"),
    reopen("reopen_handle", "\n".join((
        "held = os.open(G + '/data', os.O_PATH)",
        "os.write(os.open(f'/proc/self/fd/{held}', os.O_WRONLY), b'x')",
    ))),
    reopen("directory_handle", "\n".join((
        "held = os.open(G, os.O_PATH)",
        "os.rename('data', 'gone', src_dir_fd=held, dst_dir_fd=held)",
    ))),
    reopen("shared_mapping", "\n".join((
        "import mmap",
        "with open(G + '/data', 'r+b') as file, mmap.mmap(file.fileno(), 0) as memory:",
        "    memory[0] = 120",
    ))),
    shell("list_parent", 'ls -A "$BAIT_GRANTED/.." | grep -q home && echo ESCAPE', reads=READS),
    shell("read_sibling", 'cat "$BAIT_GRANTED/../home/data" && echo ESCAPE', reads=READS),
    shell("read_sibling_by_root", 'cat "/proc/self/root$BAIT_GRANTED/../beside/secret"'
          " >t && echo ESCAPE", reads=READS),
    shell("read_sibling_by_link", "cat granted/../home/data && echo ESCAPE", reads=READS),
    shell("write_sibling", 'echo x > "$BAIT_GRANTED/../beside/made"', reads=READS),
    shell("list_tmp", 'ls -A /tmp | grep -q "$(basename "$BAIT_TMP")" && echo ESCAPE',
          reads=READS),
)  # fmt: skip
