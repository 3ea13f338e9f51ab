"""
What building raises on purpose: one class, one line, what to do about it. Knows nothing else.
"""

from __future__ import annotations


class BuildError(Exception):
    """A variant cannot be made as asked; `str(error)` is one line for the person who asked."""
