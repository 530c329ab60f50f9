#!/usr/bin/env python3
"""Writes docs/manifest.schema.json from the classes of the manifest.

scripts/schema.py           writes the file
scripts/schema.py --check   exits with 1 if it is not up to date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sandyard import Manifest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "manifest.schema.json"


def main() -> int:
    """Write or check the file."""
    text = json.dumps(Manifest.json_schema(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/manifest.schema.json is not up to date; run scripts/schema.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
