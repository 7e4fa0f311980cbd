"""Learning rates that did well in our measurements."""

from __future__ import annotations

#: Of an encoder that was pretrained, as a masker that is fitted by regression.
LEARNING_RATE = 1e-4

#: Of a head on the explained model's hidden states, which starts from nothing.
HEAD_LEARNING_RATE = 1e-3

__all__ = ["HEAD_LEARNING_RATE", "LEARNING_RATE"]
