"""What every server is asked: the project's own sentences, as many of a length as news has."""

from __future__ import annotations

from itertools import islice

from loadtest.texts import compose

# No more than fill one window of the embedded models: what is longer the others cut off, and Kadogo
# reads it in two.
LONGEST = 290


def sentences(count: int, seed: int) -> list[str]:
    """So many; the same for the same seed."""
    texts = (each.text for each in compose("sentences", count=2 * count, seed=seed))
    return list(islice((text for text in texts if len(text) <= LONGEST), count))
