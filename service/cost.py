"""
What a run costs: a straight line from its size to its seconds, kept up to date.

Knows nothing of models, texts or queues.
"""

from __future__ import annotations

# What a measurement still weighs after as many others as its inverse: some hundred runs back, so
# that a neighbour on the machine is seen within seconds and a single slow run is not believed.
FORGET = 0.01


class Line:
    """
    seconds = fixed + each x size, by least squares in which older measurements fade.

    Of errors it is their share that counts: a long run that took a millisecond more would else
    hide what a short one costs, which is less than that. Neither part is ever below 0: where the
    fit says so, the other is fitted alone.
    """

    __slots__ = ("_n", "_x", "_xx", "_xy", "_y", "each", "fixed")

    def __init__(self, fixed: float = 0.0, each: float = 0.0) -> None:
        self.fixed, self.each = fixed, each
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def __call__(self, size: float) -> float:
        return self.fixed + self.each * size

    def learn(self, size: float, seconds: float) -> None:
        """Of a size above 0; it weighs 1 / size squared."""
        keep, weight = 1 - FORGET, 1 / size**2
        self._n = self._n * keep + weight
        self._x = self._x * keep + weight * size
        self._y = self._y * keep + weight * seconds
        self._xx = self._xx * keep + 1
        self._xy = self._xy * keep + weight * size * seconds
        self._fit()

    def _fit(self) -> None:
        spread = self._n * self._xx - self._x * self._x
        # All of one size: nothing tells the parts apart.
        self.each = -1.0
        if spread > 1e-9 * self._n * self._xx:
            self.each = (self._n * self._xy - self._x * self._y) / spread
        self.fixed = (self._y - self.each * self._x) / self._n
        if self.each < 0 or self.fixed < 0:
            self.fixed, self.each = 0.0, self._xy / self._xx


class Mean:
    """A mean in which older measurements fade; of quotients, by what they are divided by."""

    __slots__ = ("_above", "_below")

    def __init__(self) -> None:
        self._above = self._below = 0.0

    def __call__(self) -> float:
        return self._above / self._below if self._below else 0.0

    def learn(self, above: float, below: float) -> None:
        keep = 1 - FORGET
        self._above = self._above * keep + above
        self._below = self._below * keep + below
