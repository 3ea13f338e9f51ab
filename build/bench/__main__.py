"""`python -m build.bench`: the same as `python -m build bench`. Knows no flags."""

import sys

from build.bench.cli import main

sys.exit(main(sys.argv[1:]))
