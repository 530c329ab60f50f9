"""A stand-in for macOS's ``sandbox-exec``: reads its words as that does, writes them down, and runs the command.

It holds nothing: that the wall is up is what only a Mac can show.
"""

from __future__ import annotations

import json
import os
import sys


def main(words: list[str]) -> None:
    """Take ``-D name=value`` and ``-p profile``, then the command."""
    told: dict[str, str] = {}
    profile = None
    while words and words[0] != "--":
        option, value = words.pop(0), words.pop(0)
        if option == "-D":
            name, _, path = value.partition("=")
            told[name] = path
        elif option == "-p":
            profile = value
        else:
            sys.exit(64)
    with open(os.environ["TOLD"], "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump({"parameters": told, "profile": profile}, file)
    os.execv(words[1], words[1:])  # noqa: S606  # it becomes the command


if __name__ == "__main__":
    main(sys.argv[1:])
