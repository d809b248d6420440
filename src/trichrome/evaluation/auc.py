"""The area under the ROC curve over pooled scores: does one threshold serve all queries?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def auc(positives: NDArray[Any], negatives: NDArray[Any]) -> float:
    """P(a positive scores above a negative), equal scores counted half (Mann and Whitney 1947).

    positives [P], negatives [N]: scores of all queries together. ValueError where one of them is empty.
    """
    if not positives.size or not negatives.size:
        raise ValueError("the AUC needs a positive and a negative")
    ordered = np.sort(np.ravel(negatives))
    below = np.searchsorted(ordered, np.ravel(positives), "left")
    up_to = np.searchsorted(ordered, np.ravel(positives), "right")
    return float((below + up_to).mean() / (2 * len(ordered)))
