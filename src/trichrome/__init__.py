"""trichrome: one encoder, three signals (dense, sparse, multi-vector), from encoding to evaluation."""

__version__ = "0.1.0"
