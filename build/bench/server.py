"""
The servers that are measured: Kadogo's own on a catalog, and others that say when they are ready.

Knows nothing of what any of them answers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from loadtest import process
from loadtest.process import Server, free_port, says_ready


def kadogo(
    catalog: Path, *, threads: int, settings: Mapping[str, str] | None = None
) -> AbstractContextManager[Server]:
    """
    Kadogo's server on the variants in `catalog`, with so many threads for models.

    Raises NotServing.
    """
    bentoml = [sys.executable, "-m", "bentoml", "serve", "service.app:Kadogo"]
    environment = {
        "KADOGO_CATALOG": str(catalog.resolve()),
        "KADOGO_THREADS": str(threads),
        "BENTOML_DO_NOT_TRACK": "True",
        "TOKENIZERS_PARALLELISM": "false",
        **(settings or {}),
    }
    return serving([*bentoml, "--host", "127.0.0.1"], environment)


def serving(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> AbstractContextManager[Server]:
    """`command --port N`, with /readyz; `environment`: beside ours. Raises NotServing."""
    # What is set for a server of one's own, keys say, is none of the one that is measured.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("KADOGO_")}
    port = free_port()
    return process.serving(
        "the server",
        [*command, "--port", str(port)],
        {**ours, **(environment or {})},
        port=port,
        ready=says_ready(f"http://127.0.0.1:{port}"),
    )
