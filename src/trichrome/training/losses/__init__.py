"""Losses: pure functions of a score matrix [B, C] and a Target; one file a family."""

from trichrome.training.losses.adversarial import adversarial
from trichrome.training.losses.comparative import comparative
from trichrome.training.losses.distillation import kl, listwise_kl, margin_mse
from trichrome.training.losses.embedding import embedding_match, weight_match
from trichrome.training.losses.flops import flops
from trichrome.training.losses.infonce import infonce, infonce_each
from trichrome.training.losses.mann_whitney import mann_whitney
from trichrome.training.losses.pairwise import lambda_rank, pairwise
from trichrome.training.losses.unified import unified
from trichrome.training.losses.wasserstein import wasserstein

__all__ = [
    "adversarial",
    "comparative",
    "embedding_match",
    "flops",
    "infonce",
    "infonce_each",
    "kl",
    "lambda_rank",
    "listwise_kl",
    "mann_whitney",
    "margin_mse",
    "pairwise",
    "unified",
    "wasserstein",
    "weight_match",
]
