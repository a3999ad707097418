"""When the first sound of a spoken answer is there: speech is made of its first sentence, once all of that is out.

Only requests of classes that are spoken are looked at: the token that ends the sentence is found in the step clock by
its number, in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sim.qoe import SLOClass

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Speech:
    """First sounds of the requests of one run.

    Args:
        classes: the workload's SLO classes.

    Attributes:
        spoken: whether any of them is spoken.
    """

    def __init__(self, classes: Sequence[SLOClass]) -> None:
        self._sentence = np.array([each.sentence_tokens for each in classes], dtype=np.int64)
        self._tts_s = np.array([each.tts_s for each in classes])
        self.spoken = bool(self._sentence.any())
        self._found: list[tuple[IntArray, FloatArray]] = []

    def end_of_sentence(self, slo_class: IntArray, tokens: FloatArray, hidden: IntArray | None) -> IntArray:
        """The token that ends the first sentence of each request, 0 being its first one; or the last, if it has fewer.

        Args:
            slo_class, tokens: of each request, and its output tokens.
            hidden: tokens before them that nobody hears, or None for none.
        """
        number = self._sentence[slo_class] - 1 + (0 if hidden is None else hidden)
        last: IntArray = np.maximum(np.minimum(number, tokens.astype(np.int64) - 1), 0)
        return last

    def keep(self, numbers: FloatArray, sentence_s: FloatArray) -> None:
        """Remember when the first sentences of the requests with these numbers were out, since they were sent [s]."""
        self._found.append((numbers.astype(np.int64), sentence_s))

    def column(self, slo_class: IntArray) -> FloatArray:
        """Time to the first sound of every request [s]; NaN of those that are not spoken."""
        sentence_s = np.full(len(slo_class), np.nan)
        for numbers, times in self._found:
            sentence_s[numbers] = times
        return self.sounds(sentence_s, slo_class)

    def sounds(self, sentence_s: FloatArray, slo_class: IntArray) -> FloatArray:
        """Time to the first sound, of the time to the end of the first sentence [s]; NaN where nothing is spoken."""
        heard: FloatArray = np.where(self._sentence[slo_class] > 0, sentence_s + self._tts_s[slo_class], np.nan)
        return heard
