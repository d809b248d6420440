"""Integer keys of document ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash_ids(ids: Iterable[str]) -> NDArray[np.int64]:
    """[n] 63-bit hashes of ids (BLAKE2b), not negative; the same in every process and on every machine.

    Two of a million ids collide with probability 5e-8, so whoever uses them as keys compares the id too.
    """
    digests = b"".join(hashlib.blake2b(id.encode(), digest_size=8).digest() for id in ids)
    return (np.frombuffer(digests, dtype="<u8") >> np.uint64(1)).astype(np.int64)
