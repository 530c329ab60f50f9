"""Owns the search for inputs that the readers can't take, led by coverage: ``make fuzz``.

``python -m tests.fuzz.guided TARGET [OPTION OF LIBFUZZER]…``; what is found comes to stand in
``fuzz/corpus/TARGET``, where every run of the tests tries it. It needs atheris, of which there is no
wheel for every interpreter.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Final

PARTS: Final = ["sandyard.archive", "sandyard.patching"]
"""Whose branches lead the search."""

BOUNDS: Final = ("-max_len=16384", "-timeout=20", "-rss_limit_mb=2048")
"""Bytes of an input, seconds and memory that it may take, past which it counts as found."""


def main(words: list[str]) -> int:
    """Searches until an option ends it, or something is found; both end this program."""
    if importlib.util.find_spec("atheris") is None:
        print("the search led by coverage is left out: there is no atheris for this interpreter")
        return 0
    name, *options = words
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=PARTS):
        readers = importlib.import_module("tests.fuzz.readers")
    place = readers.CORPUS / name
    seeds = ",".join(str(path) for path in sorted(place.iterdir()))
    given = [f"-artifact_prefix={place}/", f"-seed_inputs={seeds}", *BOUNDS, *options]
    atheris.Setup(["guided", *given], readers.TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
