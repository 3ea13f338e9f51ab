"""
Compare the tests a run skipped with the checked-in list; exit 1 and say how they differ.

A listed test is skipped; one listed with a ? before it may be, as the machine is.
"""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def skipped(report: Path) -> set[str]:
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("skipped") is not None
    }


def listed(file: Path) -> set[str]:
    lines = (line.strip() for line in file.read_text().splitlines())
    return {line for line in lines if line and not line.startswith("#")}


if __name__ == "__main__":
    found, lines = skipped(Path(sys.argv[1])), listed(Path(sys.argv[2]))
    expected = {line for line in lines if not line.startswith("?")}
    found -= {line.removeprefix("?").strip() for line in lines - expected}
    for name in sorted(found - expected):
        print(f"skipped, but not listed in {sys.argv[2]}: {name}")
    for name in sorted(expected - found):
        print(f"listed in {sys.argv[2]}, but not skipped: {name}")
    sys.exit(found != expected)
