"""Text to Embeddings."""

from trichrome.encoder.checkpoints import NewHeads, load, save
from trichrome.encoder.config import BackboneConfig, EncoderConfig
from trichrome.encoder.encoder import Encoder, Progress, TruncationWarning

__all__ = [
    "BackboneConfig",
    "Encoder",
    "EncoderConfig",
    "NewHeads",
    "Progress",
    "TruncationWarning",
    "load",
    "save",
]
