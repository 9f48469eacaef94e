"""Instructions as bucket numbers: hashed words and word pairs. No torch, no vocabulary file.

Enters: any text. Leaves: bucket ids in [0, buckets), one for every word and every pair of
neighbouring words ("open the drawer": open, the, drawer, open_the, the_drawer). Both text encoders
(policies and judges) look these ids up in an embedding bag. This is the hashing trick of Weinberger
et al. 2009 with the bigrams of fastText (Joulin et al. 2016): an unseen wording that shares words
with a seen one lands near it, and word order survives in the pairs.
"""

from __future__ import annotations

import re
import zlib

from worldeval.errors import ConfigError

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def token_buckets(text: str, buckets: int) -> list[int]:
    """Bucket ids of the words of ``text``, then of its word pairs; [] for a text without words.

    Case and punctuation do not matter. The same text gives the same ids on every machine and in
    every process (crc32, not Python's salted ``hash``), since trained embeddings depend on it.
    """
    if buckets < 1:
        raise ConfigError(f"buckets is {buckets!r}, expected at least 1")
    words = _WORD.findall(text.lower())
    pairs = [f"{first}_{second}" for first, second in zip(words, words[1:], strict=False)]
    return [zlib.crc32(token.encode()) % buckets for token in words + pairs]
