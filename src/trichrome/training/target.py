"""What a score matrix is trained towards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """For B queries and C passages.

    positive [B, C] bool: the passages that answer a query, at least one a row.
    mask [B, C] bool: the passages that count for a query. False for another query's passage that answers
    this one too (a false negative), and for all passages of other queries where in-batch negatives are off.
    Positives always count.
    teacher [B, C] float: a teacher's scores where there are any, NaN where it gave none.
    """

    positive: Tensor
    mask: Tensor
    teacher: Tensor | None = None

    def __post_init__(self) -> None:
        if self.positive.dtype != torch.bool or self.mask.dtype != torch.bool:
            raise TypeError("Target.positive and Target.mask must be boolean")
        if self.positive.shape != self.mask.shape:
            raise ValueError(f"positive is {list(self.positive.shape)}, mask {list(self.mask.shape)}")
        if self.teacher is not None and self.teacher.shape != self.mask.shape:
            raise ValueError(f"teacher is {list(self.teacher.shape)}, mask {list(self.mask.shape)}")
        if not bool(self.positive.any(1).all()):
            raise ValueError("every query needs a positive passage")
        if bool((self.positive & ~self.mask).any()):
            raise ValueError("a positive passage must not be masked")

    def to(self, device: torch.device | str) -> Target:
        """The same on another device."""
        teacher = None if self.teacher is None else self.teacher.to(device)
        return Target(self.positive.to(device), self.mask.to(device), teacher)
