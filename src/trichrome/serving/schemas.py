"""Requests and answers of the endpoints that encode. Fields that an endpoint doesn't know are refused, so
that nothing a client asks for is silently left out."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Kind: TypeAlias = Literal["query", "passage"]
Signal: TypeAlias = Literal["dense", "sparse", "multivector"]
ModeName: TypeAlias = Literal["dense", "sparse", "multivector", "dense+sparse", "all"]
Weight: TypeAlias = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
Weights: TypeAlias = Annotated[
    list[Weight],
    Field(min_length=3, max_length=3, description="Of dense, sparse and multivector, not all 0."),
]
Texts: TypeAlias = Annotated[list[str], Field(min_length=1)]


class Request(BaseModel):
    """Types are taken as they are: "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


# OpenAI


class EmbeddingsRequest(Request):
    """OpenAI's, and besides `input_type` (whose prompt is put before) and `truncate`."""

    input: str | Texts = Field(description="Texts. Token ids of other tokenizers are not understood.")
    model: str | None = Field(
        None, description="Any name; the server has one model and answers with its name."
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, description="The model's own width; others are refused.")
    user: str | None = None
    input_type: Kind = "passage"
    truncate: bool = Field(False, description="Cut texts that are too long; else they are refused.")


class EmbeddingItem(Answer):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class Usage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Answer):
    object: Literal["list"]
    data: list[EmbeddingItem]
    model: str
    usage: Usage


class ModelItem(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(Answer):
    object: Literal["list"]
    data: list[ModelItem]


# text-embeddings-inference


class EmbedRequest(Request):
    """text-embeddings-inference's."""

    inputs: str | Texts
    normalize: Literal[True] = Field(True, description="Vectors always have unit length.")
    prompt_name: Kind | None = Field(None, description="passage by default.")
    truncate: bool = False
    truncation_direction: Literal["Right", "right"] = "Right"


class EmbedSparseRequest(Request):
    """text-embeddings-inference's."""

    inputs: str | Texts
    prompt_name: Kind | None = Field(None, description="passage by default.")
    truncate: bool = False
    truncation_direction: Literal["Right", "right"] = "Right"


class SparseValue(Answer):
    """index: the token id."""

    index: int
    value: float


class RerankRequest(Request):
    """text-embeddings-inference's. raw_scores: the weighted sum, else divided by the sum of the weights."""

    query: str
    texts: Texts
    raw_scores: bool = False
    return_text: bool = False
    truncate: bool = False
    truncation_direction: Literal["Right", "right"] = "Right"
    mode: ModeName | None = Field(None, description="Which scores count; all that the model has by default.")
    weights: Weights | None = None


class Rank(Answer):
    index: int
    score: float
    text: str | None = None


# Cohere and Jina


class TextDocument(Request):
    text: str


class RerankDocumentsRequest(Request):
    """Cohere's and Jina's. Documents that are too long are cut, as there, and `meta.warnings` says so."""

    query: str
    documents: Annotated[list[str | TextDocument], Field(min_length=1)]
    model: str | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False
    mode: ModeName | None = Field(None, description="Which scores count; all that the model has by default.")
    weights: Weights | None = None


class RankedText(Answer):
    text: str


class RankedDocument(Answer):
    index: int
    relevance_score: float
    document: RankedText | None = None


class RerankMeta(Answer):
    warnings: list[str]


class RerankAnswer(Answer):
    id: str
    model: str
    results: list[RankedDocument]
    usage: Usage
    meta: RerankMeta


# all three


class EncodeRequest(Request):
    """texts: of one kind. outputs: any of the three, all that the model has by default."""

    texts: Texts
    kind: Kind = "passage"
    outputs: Annotated[list[Signal], Field(min_length=1, max_length=3)] | None = None
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="Of dense and multivector; base64 is of little-endian float32, row by row."
    )
    truncate: bool = Field(False, description="Cut texts that are too long; else they are refused.")


class SparseVector(Answer):
    """As vector databases take it. indices: token ids, ascending."""

    indices: list[int]
    values: list[float]


class EncodeUsage(Answer):
    """tokens: read. truncated: texts that were cut."""

    tokens: int
    truncated: int


class EncodeAnswer(Answer):
    """Of each text, in their order: dense [D], sparse, multivector [T][d']; null where not asked for."""

    model: str
    dense: list[list[float] | str] | None
    sparse: list[SparseVector] | None
    multivector: list[list[list[float]] | str] | None
    dense_dim: int | None
    multivector_dim: int | None
    usage: EncodeUsage
