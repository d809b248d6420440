"""The network as one ONNX graph: what model.py and heads.py compute, in standard operators.

    B texts · L tokens (padded) · d hidden · h heads · f feed-forward · V vocabulary

Inputs: input_ids and attention_mask, int64 [B, L]; pooling, int64 [], which may be left out: its default is
the encoder's own choice (0 CLS, 1 mean, 2 the mean of all CLS tokens, M3 section 3.4).
Outputs: dense [B, d], unit length; sparse_weights [B, L] ≥ 0, 0 at special tokens and padding (a text's
weight of a token id is the largest over its places); token_vectors [B, L, d'], unit length, free at padding.

In int8 the products of the layers are between bytes. Weights are rounded once, a scale for each output
column; activations with a scale for each product that a few texts gave beforehand (`smoothing`), or that each
token gives itself, so that no text depends on others in its batch. onnxruntime makes one kernel of each group
of QuantizeLinear, DequantizeLinear and MatMul; in graphs whose activations have two axes instead of three it
takes MatMul and Add together first, and computes in floats. Word vectors are rounded too, a scale for each
word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trichrome.encoder.config import POOLINGS, EncoderConfig
from trichrome.encoder.heads import Network
from trichrome.encoder.model import Backbone, Layer
from trichrome.encoder.smoothing import BALANCED, Balance
from trichrome.errors import TrichromeError
from trichrome.extras import require

OPSET = 20
INPUTS = ("input_ids", "attention_mask", "pooling")
#: Signal → the graph's output.
OUTPUTS = {"dense": "dense", "sparse": "sparse_weights", "multivector": "token_vectors"}

#: The products of a layer, which int8 can be asked to leave in float32.
PRODUCTS = ("qkv", "out", "up", "down")

#: GELU is never below -0.17: a row's largest number, or this, bounds it on both sides.
_LEAST_ROW = 0.17
_LOWEST = float(np.finfo(np.float32).min)


def build_graph(
    network: Network,
    config: EncoderConfig,
    *,
    int8: bool = False,
    leave_out: Collection[str] = (),
    balances: Mapping[str, Balance] | None = None,
) -> Any:
    """An onnx.ModelProto of the whole network.

    int8: round the layers' products. leave_out: those that stay in float32 all the same: names of PRODUCTS,
    in every layer ("down") or in one ("0.down"). balances: what `smoothing.smoothing` made; int8 needs it.

    TrichromeError for networks that are not trichrome's own (BERT, RoBERTa, XLM-R).
    """
    onnx = require("onnx", "onnx")
    backbone = network.backbone
    if not isinstance(backbone, Backbone):
        raise TrichromeError(
            f"{config.name}: only BERT, RoBERTa and XLM-R networks can be exported, not {config.architecture}"
        )
    graph = _Graph(onnx)
    known = {*PRODUCTS, *(f"{i}.{name}" for i in range(len(backbone.layers)) for name in PRODUCTS)}
    if wrong := sorted(set(leave_out) - known):
        raise TrichromeError(
            f"leave_out: no product is called {wrong[0]!r}; there are {', '.join(PRODUCTS)} "
            "(in one layer: 0.qkv)"
        )
    shape = _Shape(graph, backbone)
    x = _embed(graph, shape, backbone, int8)  # [B, L, d]
    attend = graph.op("Unsqueeze", shape.bias, graph.ints(1, 2))  # [B, 1, 1, L]
    for i, layer in enumerate(backbone.layers):
        assert isinstance(layer, Layer)
        rounded = {p for p in PRODUCTS if int8 and p not in leave_out and f"{i}.{p}" not in leave_out}
        balanced = {p: (balances or {})[f"{i}.{p}"] for p in rounded & {*BALANCED}}
        x = _layer(graph, shape, layer, f"layers.{i}", x, attend, rounded, balanced)
    _heads(graph, shape, network, config, x)
    return graph.model(config, backbone.config.hidden)


class _Graph:
    """Nodes in the order in which they run, and their constants."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.outputs: list[tuple[str, list[str | int]]] = []

    def constant(self, name: str, value: Tensor | NDArray[Any]) -> str:
        """A named array, kept once."""
        array = value.detach().float().cpu().numpy() if isinstance(value, Tensor) else value
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def ints(self, *values: int) -> str:
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def integer(self, value: int) -> str:
        return self.constant(f"integer_{value}", np.array(value, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"number_{value}", np.array(value, np.float32))

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: int | float | list[int]) -> str:
        """A node of one output; returns the output's name."""
        (made,) = self.ops(kind, inputs, [name or f"{kind}_{len(self.nodes)}"], **attributes)
        return made

    def ops(
        self, kind: str, inputs: Sequence[str], outputs: list[str], **attributes: int | float | list[int]
    ) -> list[str]:
        """A node of several outputs."""
        self.nodes.append(
            self.onnx.helper.make_node(kind, list(inputs), outputs, name=outputs[0], **attributes)
        )
        return outputs

    def output(self, name: str, value: str, shape: list[str | int]) -> None:
        """Give a value the name of an output."""
        self.op("Identity", value, name=name)
        self.outputs.append((name, shape))

    def model(self, config: EncoderConfig, hidden: int) -> Any:
        """The ModelProto, checked."""
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        default = np.array(POOLINGS.index(config.pooling), np.int64)
        made = helper.make_graph(
            self.nodes,
            "trichrome",
            [
                helper.make_tensor_value_info("input_ids", kinds.INT64, ["batch", "tokens"]),
                helper.make_tensor_value_info("attention_mask", kinds.INT64, ["batch", "tokens"]),
                helper.make_tensor_value_info("pooling", kinds.INT64, []),
            ],
            [helper.make_tensor_value_info(name, kinds.FLOAT, shape) for name, shape in self.outputs],
            [
                self.onnx.numpy_helper.from_array(array, name)
                for name, array in {"pooling": default, **self.constants}.items()
            ],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(made, opset_imports=opsets, producer_name="trichrome", ir_version=10)


class _Shape:
    """What many nodes need to know of a batch: its sizes, and what may be attended to."""

    def __init__(self, graph: _Graph, backbone: Backbone) -> None:
        c = backbone.config
        self.batch = graph.op("Shape", "input_ids", start=0, end=1)  # [1]
        self.tokens = graph.op("Shape", "input_ids", start=1, end=2)  # [1]
        sizes = (self.batch, self.tokens)
        self.rows = graph.op("Concat", *sizes, graph.ints(c.hidden), axis=0)  # B, L, d
        split = graph.ints(c.heads, c.hidden // c.heads)
        self.by_head = graph.op("Concat", *sizes, split, axis=0)  # B, L, h, d/h
        self.mask = graph.op("Cast", "attention_mask", to=graph.onnx.TensorProto.BOOL)  # [B, L]
        self.bias = graph.op("Where", self.mask, graph.number(0.0), graph.number(_LOWEST))  # [B, L]


def _embed(graph: _Graph, shape: _Shape, backbone: Backbone, int8: bool) -> str:
    """Word + position + segment, normalised: [B, L, d]."""
    c = backbone.config
    if int8:
        rounded, scale = _rounded(backbone.word.weight)  # [V, d] int8, [V]
        words = graph.op("Gather", graph.constant("word.int8", rounded), "input_ids")
        words = graph.op("Cast", words, to=graph.onnx.TensorProto.FLOAT)
        scales = graph.op("Gather", graph.constant("word.scale", scale[:, None]), "input_ids")  # [B, L, 1]
        words = graph.op("Mul", words, scales)
    else:
        words = graph.op("Gather", graph.constant("word", backbone.word.weight), "input_ids")  # [B, L, d]
    # padding stands at the end, so the positions of real tokens are first, first + 1, …
    table = backbone.position.weight[c.first_position :] + backbone.segment.weight[0]  # [max_tokens, d]
    where = graph.op("Slice", graph.constant("position", table), graph.ints(0), shape.tokens, graph.ints(0))
    return _norm(graph, backbone.norm, "norm", graph.op("Add", words, where))


def _layer(
    graph: _Graph,
    shape: _Shape,
    layer: Layer,
    name: str,
    x: str,
    attend: str,
    rounded: Collection[str],
    balanced: Mapping[str, Balance],
) -> str:
    """One transformer layer, [B, L, d] → the same. rounded: the products in int8; balanced: how, of those
    that are not divided token by token."""

    def product(which: str, of: str, weight: Tensor, bias: Tensor, *, divided: bool = False) -> str:
        weight = weight.detach().float().cpu()
        if which not in rounded:
            return _linear(graph, f"{name}.{which}", of, weight, bias)
        if which not in balanced:
            return _rounded_linear(graph, f"{name}.{which}", of, weight, bias)
        c = balanced[which].channels
        if not divided:
            of = graph.op("Mul", of, graph.constant(f"{name}.{which}.smooth", 1 / c))
        reach = balanced[which].reach
        return _rounded_linear(graph, f"{name}.{which}", of, weight * c, bias, reach)

    d = layer.out.in_features
    scale = torch.ones(3 * d)
    scale[:d] = (d // layer.heads) ** -0.5  # of queries: products are divided by √(d/h)
    if "out" in balanced:  # of values: what is mixed of them is divided by it, for free
        scale[2 * d :] = 1 / balanced["out"].channels
    weight, bias = layer.qkv.weight.float().cpu() * scale[:, None], layer.qkv.bias.float().cpu() * scale
    qkv = product("qkv", x, weight, bias)  # [B, L, 3d]
    q, k, v = graph.ops("Split", [qkv], [f"{name}.{part}" for part in "qkv"], axis=-1, num_outputs=3)
    q, k, v = (graph.op("Reshape", part, shape.by_head) for part in (q, k, v))  # each [B, L, h, d/h]
    q, v = (graph.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))  # [B, h, L, d/h]
    k = graph.op("Transpose", k, perm=[0, 2, 3, 1])  # [B, h, d/h, L]
    scores = graph.op("Add", graph.op("MatMul", q, k), attend)  # [B, h, L, L]
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), v)  # [B, h, L, d/h]
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])  # [B, L, h, d/h]
    mixed = graph.op("Reshape", mixed, shape.rows)  # [B, L, d]
    out = product("out", mixed, layer.out.weight, layer.out.bias, divided=True)
    x = _norm(graph, layer.norm1, f"{name}.norm1", graph.op("Add", x, out))
    up = graph.op("Gelu", product("up", x, layer.up.weight, layer.up.bias))  # [B, L, f]
    down = product("down", up, layer.down.weight, layer.down.bias)
    return _norm(graph, layer.norm2, f"{name}.norm2", graph.op("Add", x, down))


def _linear(graph: _Graph, name: str, x: str, weight: Tensor, bias: Tensor) -> str:
    """x W^T + b: [..., in] with W [out, in] → [..., out]."""
    product = graph.op("MatMul", x, graph.constant(f"{name}.weight", weight.detach().T))
    return graph.op("Add", product, graph.constant(f"{name}.bias", bias))


def _rounded_linear(
    graph: _Graph, name: str, x: str, weight: Tensor, bias: Tensor, reach: float | None = None
) -> str:
    """The same between bytes. reach: the range that the steps of x divide; None: each token's own largest
    number. In what comes out of GELU a few tokens have numbers hundreds of times larger than the others'."""
    rounded, scale = _rounded(weight)  # [out, in] int8, [out]
    largest = ""
    if reach is None:
        rows = graph.op("ReduceMax", x, graph.ints(-1), keepdims=1)  # [B, L, 1]
        largest = graph.op("Max", rows, graph.number(_LEAST_ROW))
        x, reach = graph.op("Div", x, largest), 1.0
    step = graph.constant(f"{name}.step", np.array(reach / 127, np.float32))
    middle = graph.constant("middle", np.array(128, np.uint8))
    x = graph.op("DequantizeLinear", graph.op("QuantizeLinear", x, step, middle), step, middle)
    kept = (
        graph.constant(f"{name}.int8", rounded.T),
        graph.constant(f"{name}.scale", scale),
        graph.constant(f"{name}.zero", np.zeros(len(scale), np.int8)),
    )
    product = graph.op("MatMul", x, graph.op("DequantizeLinear", *kept, axis=1))
    if largest:
        product = graph.op("Mul", product, largest)
    return graph.op("Add", product, graph.constant(f"{name}.bias", bias))


def _norm(graph: _Graph, norm: nn.LayerNorm, name: str, x: str) -> str:
    gain, offset = graph.constant(f"{name}.weight", norm.weight), graph.constant(f"{name}.bias", norm.bias)
    return graph.op("LayerNormalization", x, gain, offset, axis=-1, epsilon=norm.eps)


def _rounded(weight: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """W [n, in] → int8 [n, in] and a scale a row [n]: W ≈ int8 · scale."""
    rows = weight.detach().float().cpu().numpy()
    scale = np.maximum(np.abs(rows).max(1), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(rows / scale[:, None]).astype(np.int8), scale


def _heads(graph: _Graph, shape: _Shape, network: Network, config: EncoderConfig, x: str) -> None:
    """[B, L, d] → the three outputs, always in float32."""
    heads = network.heads
    chosen = graph.op("Cast", _chosen(graph, shape, config), to=graph.onnx.TensorProto.FLOAT)  # [B, L]
    share = graph.op("Div", chosen, graph.op("ReduceSum", chosen, graph.ints(1), keepdims=1))
    pooled = graph.op("MatMul", graph.op("Unsqueeze", share, graph.ints(1)), x)  # [B, 1, d]
    pooled = _unit(graph, graph.op("Squeeze", pooled, graph.ints(1)))
    width = network.backbone.config.hidden  # type: ignore[union-attr]
    graph.output(OUTPUTS["dense"], pooled, ["batch", width])  # type: ignore[list-item]
    if heads.sparse is not None:
        weights = _linear(graph, "sparse", x, heads.sparse.weight, heads.sparse.bias)  # [B, L, 1]
        weights = graph.op("Reshape", graph.op("Relu", weights), graph.op("Shape", "input_ids"))  # [B, L]
        special = graph.ints(*config.unscored_ids)
        ids = graph.op("Unsqueeze", "input_ids", graph.ints(2))  # [B, L, 1]
        same = graph.op("Cast", graph.op("Equal", ids, special), to=graph.onnx.TensorProto.FLOAT)
        same = graph.op("ReduceMax", same, graph.ints(2), keepdims=0)  # [B, L] 1 where special
        counts = graph.op("Where", shape.mask, graph.op("Sub", graph.number(1.0), same), graph.number(0.0))
        graph.output(OUTPUTS["sparse"], graph.op("Mul", weights, counts), ["batch", "tokens"])
    if heads.multivector is not None:
        vectors = _linear(graph, "multivector", x, heads.multivector.weight, heads.multivector.bias)
        size = heads.multivector.out_features
        graph.output(OUTPUTS["multivector"], _unit(graph, vectors), ["batch", "tokens", size])


def _chosen(graph: _Graph, shape: _Shape, config: EncoderConfig) -> str:
    """[B, L] the tokens whose states become the dense vector, by the input `pooling`."""
    places = graph.op("Range", graph.integer(0), graph.op("Squeeze", shape.tokens), graph.integer(1))  # [L]
    first = graph.op("And", shape.mask, graph.op("Equal", places, graph.integer(0)))
    cls = graph.op("And", shape.mask, graph.op("Equal", "input_ids", graph.integer(config.cls_id)))
    chosen = []
    for name, tokens in {"cls": first, "mean": shape.mask, "mcls": cls}.items():
        asked = graph.op("Equal", "pooling", graph.integer(POOLINGS.index(name)))  # []
        chosen.append(graph.op("And", asked, tokens))
    return graph.op("Or", graph.op("Or", chosen[0], chosen[1]), chosen[2])


def _unit(graph: _Graph, x: str) -> str:
    """[..., n] → unit length along the last axis."""
    norm = graph.op("ReduceL2", x, graph.ints(-1), keepdims=1)
    return graph.op("Div", x, graph.op("Max", norm, graph.number(1e-12)))
