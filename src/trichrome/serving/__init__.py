"""The HTTP API: one encoder and any number of indexes, for programs that speak OpenAI's, Cohere's or
text-embeddings-inference's language, and for search itself. Needs the extra `serve`."""

from trichrome.serving.app import create_app
from trichrome.serving.limits import Limits
from trichrome.serving.run import server
from trichrome.serving.shelf import Shelf

__all__ = ["Limits", "Shelf", "create_app", "server"]
