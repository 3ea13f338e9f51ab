"""
Where models lie for each peer: `make peers` has put them there with `python -m build`.

Knows paths only.
"""

from __future__ import annotations

from pathlib import Path

from loadtest.peers.peers import KADOGO, ROOT, Peer

HERE = ROOT / ".cache" / "peers"
ZOO = ROOT / "models" / "zoo"


class NoModel(Exception):
    """A model was not made ready."""


def folder_of(peer: Peer, model: str, here: Path = HERE) -> Path:
    """Kadogo's is a catalog of that variant alone, as each peer holds one model. Raises NoModel."""
    if peer.name != KADOGO:
        return _there(here / model)
    variant = _there(ZOO / model if (ZOO / model).is_dir() else here / "shapes" / model)
    catalog = here / "kadogo" / model
    catalog.mkdir(parents=True, exist_ok=True)
    if not (catalog / model).exists():
        (catalog / model).symlink_to(variant, target_is_directory=True)
    return catalog


def _there(folder: Path) -> Path:
    if not folder.is_dir():
        raise NoModel(f"{folder} is not there: make peers makes it")
    return folder
