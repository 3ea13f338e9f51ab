"""
Hold an image's bill of materials (CycloneDX) against the packages that are pinned.

    python3 deploy/bill.py sbom.cdx.json requirements/serve.txt

Ends with 1 and the packages that it does not list in their version. Needs nothing but Python.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any


def unlisted(bill: dict[str, Any], requirements: str) -> list[str]:
    """Of `name==version` a line, those that the bill lacks."""
    listed = {(_known(each["name"]), each["version"]) for each in bill["components"]}
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", requirements, re.MULTILINE)
    return [f"{name}=={version}" for name, version in pins if (_known(name), version) not in listed]


def _known(name: str) -> str:
    """Simple_DI and simple.di are simple-di."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(bill: str, requirements: str) -> int:
    lacking = unlisted(json.loads(Path(bill).read_text()), Path(requirements).read_text())
    print(
        f"{bill} lacks {', '.join(lacking)}" if lacking else f"{bill} lists all of {requirements}"
    )
    return int(bool(lacking))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
