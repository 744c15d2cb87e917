"""Attention of ONNX, as the products, sums and softmax that it consists of.

Symbols: N sequences, S queries, T keys with those of the past, H heads of the queries, G of the keys, E and F sizes of
a key and of a value; q[N, H, S, E], k[N, G, T, E], v[N, G, T, F]; p the position of a query among the keys, j of a key.
"""

from __future__ import annotations

import math

import numpy as np

from graphsr.dim import Dim
from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.ops import (
    Add,
    And,
    Arange,
    Cast,
    Concat,
    Div,
    Equal,
    Expand,
    Less,
    LessEqual,
    MatMul,
    Mul,
    PadNd,
    ReduceMax,
    Reshape,
    Softmax,
    Sub,
    Tanh,
    Transpose,
    Where,
)

from .onnx_call import Call, operator

MASK, PAST_KEY, PAST_VALUE, LENGTHS = 3, 4, 5, 6
"""Places of the optional inputs."""


@operator("Attention")
def attention(call: Call) -> list[Node]:
    """y = softmax(c·tanh(s·q·kᵀ/c) + bias)·v, the present keys and values, and the scores on the way.

    | since | |
    |---|---|
    | 23 | bias from `attn_mask` and `is_causal`, `softcap` c, `scale` s, past keys and values |
    | 24 | input `nonpad_kv_seqlen`: how many keys each sequence has |
    | 25 | `left_window_size`, `right_window_size` |
    """
    call.ignore("softmax_precision")  # of sums that no type of ours holds less precisely than float32
    q = _heads(call, call.x(0), "q_num_heads")
    k, v = (
        _joined(call, _heads(call, call.x(i), "kv_num_heads"), past)
        for i, past in ((1, call.opt(PAST_KEY)), (2, call.opt(PAST_VALUE)))
    )
    scores = [_products(call, q, _repeated(call, k, q))]
    scores.append(_capped(call, scores[0]))
    bias = _bias(call, q, k)
    scores.append(scores[1] if bias is None else call(Add(), scores[1], bias))
    weights = call(Softmax(), scores[2])
    if bias is not None:  # a query without keys gets zeros
        nothing = call(Equal(), call(ReduceMax((-1,)), bias), call.like(-math.inf, bias))
        weights = call(Where(), nothing, call.like(0, weights), weights)
    y = call(MatMul(), weights, _repeated(call, v, q))
    if call.x(0).type.rank == 3:
        n, heads, steps, size = y.type.shape
        y = call(Reshape((n, steps, heads * size)), call(Transpose((0, 2, 1, 3)), y))
    call.only("qk_matmul_output_mode", 0, 1, 2, 3)
    return [y, k, v, [*scores, weights][call.attr("qk_matmul_output_mode")]]


def _heads(call: Call, x: Node, attribute: str) -> Node:
    """[N, S, H·E] -> [N, H, S, E], which may be given already."""
    heads = call.attr(attribute)
    if x.type.rank == 4:
        return x
    if x.type.rank != 3:
        raise ModelError(f"queries, keys and values must have 3 or 4 dimensions, got {x.type}")
    n, steps, size = x.type.shape
    if not heads or heads < 1 or (isinstance(size, int) and size % heads):
        raise ModelError(f"attribute {attribute}={heads!r} does not divide the last axis of {x.type}")
    return call(Transpose((0, 2, 1, 3)), call(Reshape((n, steps, heads, size // heads)), x))


def _joined(call: Call, x: Node, past: Node | None) -> Node:
    return x if past is None else call(Concat(2), past, x)


def _repeated(call: Call, x: Node, q: Node) -> Node:
    """[N, G, T, E] -> [N, H, T, E], each head once for every query head that shares it."""
    n, given, steps, size = x.type.shape
    wanted, given = (call.known(heads, "the number of heads") for heads in (q.type.shape[1], given))
    if wanted == given:
        return x
    if not given or wanted % given:
        raise ModelError(f"{wanted} heads of queries cannot share {given} heads of keys or values")
    each = call(Reshape((n, given, 1, steps, size)), x)
    return call(Reshape((n, wanted, steps, size)), call(Expand((n, given, wanted // given, steps, size)), each))


def _products(call: Call, q: Node, k: Node) -> Node:
    """s·q·kᵀ, with s = 1/√E by default."""
    scale = call.attr("scale")
    if scale is None:
        scale = 1 / math.sqrt(call.known(q.type.shape[3], "the size of a key") or 1)
    return call(MatMul(), call(Mul(), q, call.like(scale, q)), call(Transpose((0, 1, 3, 2)), k))


def _capped(call: Call, scores: Node) -> Node:
    """c·tanh(scores/c), or the scores where c is 0."""
    bound = call.attr("softcap")
    if not bound:
        return scores
    if bound < 0:
        raise ModelError(f"attribute softcap={bound:g} must not be negative")
    limit = call.like(bound, scores)
    return call(Mul(), limit, call(Tanh(), call(Div(), scores, limit)))


# What is added to the scores


def _bias(call: Call, q: Node, k: Node) -> Node | None:
    """The mask, and −∞ for keys that a query does not see; None where it sees all."""
    bias, seen = _mask(call, q, k), _seen(call, q, k)
    if not seen:
        return bias
    all_of_them = seen[0]
    for each in seen[1:]:
        all_of_them = call(And(), all_of_them, each)
    return call(Where(), all_of_them, bias or call.like(0, q), call.like(-math.inf, q))


def _mask(call: Call, q: Node, k: Node) -> Node | None:
    """What the mask adds, −∞ where a bool one is false and for keys behind its end."""
    mask, keys = call.opt(MASK), k.type.shape[2]
    if mask is None:
        return None
    if mask.type.dtype == "bool":
        mask = call(Where(), mask, call.like(0, q), call.like(-math.inf, q))
    missing = keys - mask.type.shape[-1]
    if isinstance(missing, Dim) or missing <= 0 or mask.type.shape[-1] == 1:
        return mask
    before = (0,) * (2 * mask.type.rank - 1)
    return call(PadNd((*before, missing), value=-math.inf), mask)


def _seen(call: Call, q: Node, k: Node) -> list[Node]:
    """The conditions that a key must meet to be seen, bool[…, S, T]."""
    lengths = call.opt(LENGTHS)
    j, p, seen = call(Arange(k.type.shape[2])), _positions(call, q, lengths), []
    if lengths is not None:
        seen.append(call(Less(), j, _column(call, lengths)))
    if call.attr("is_causal"):
        seen.append(call(LessEqual(), j, p))
    for side, sign in (("left_window_size", 1), ("right_window_size", -1)):
        width = call.attr(side, -1)
        if width < -1:
            raise ModelError(f"attribute {side}={width} must be −1 or a number of keys")
        if width >= 0:
            far = call(Sub(), p, j) if sign > 0 else call(Sub(), j, p)
            seen.append(call(LessEqual(), far, _whole(call, width)))
    return seen


def _positions(call: Call, q: Node, lengths: Node | None) -> Node:
    """p, int64[S, 1] or, where sequences have different lengths, [N, 1, S, 1]: queries are the last of the keys, but
    the first without a past."""
    steps, past = q.type.shape[2], call.opt(PAST_KEY)
    if lengths is not None:
        to_the_end = call(Arange(stop=0, start=steps, step=-1))
        return call(Sub(), _column(call, lengths), call(Reshape((steps, 1)), to_the_end))
    start = 0 if past is None else past.type.shape[2]
    return call(Reshape((steps, 1)), call(Arange(stop=start + steps, start=start)))


def _column(call: Call, lengths: Node) -> Node:
    return call(Reshape((lengths.type.shape[0], 1, 1, 1)), call(Cast("int64"), lengths))


def _whole(call: Call, value: int) -> Node:
    return call.const(np.int64(value))
