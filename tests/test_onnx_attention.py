"""Attention of ONNX beyond its node tests: sizes that stay open, against PyTorch, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="makes ONNX files")

from onnx_models import Array, model, node, weight

from graphsr.backends.reference import ReferenceBackend
from graphsr.errors import ModelError
from graphsr.importers.onnx_import import build_graph
from graphsr.importers.onnx_reader import Source
from graphsr.ir import Graph
from graphsr.testing import tolerance

OPEN = {"q": ("n", 4, "s", 6), "k": ("n", 2, "t", 6), "v": ("n", 2, "t", 5)}


def graph_of(shapes: dict[str, tuple[int | str, ...]], names: str, opset: int = 25, **attributes: Any) -> Graph:
    made = model([node("Attention", names, "y", "layer", **attributes)], shapes, opset=opset)
    return build_graph(Source(made), {}, {})


def values(n: int, s: int, t: int) -> dict[str, Array]:
    return {"q": 4 * weight(n, 4, s, 6), "k": 3 * weight(n, 2, t, 6), "v": weight(n, 2, t, 5)}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_one_network_for_all_lengths(causal: bool, mask: bool) -> None:
    """Two heads of queries share one of keys; number of sequences and both lengths are open."""
    torch = pytest.importorskip("torch")
    shapes: dict[str, tuple[int | str, ...]] = {**OPEN, **({"mask": ("s", "t")} if mask else {})}
    run = ReferenceBackend().compile(graph_of(shapes, " ".join(shapes), is_causal=int(causal)))
    for n, s, t in ((1, 1, 3), (2, 5, 7), (3, 4, 4)):
        given = values(n, s, t)
        bias = weight(s, t) if mask else np.zeros((s, t), np.float32)
        seen = np.tril(np.ones((s, t), np.bool_)) if causal else np.ones((s, t), np.bool_)
        want = torch.nn.functional.scaled_dot_product_attention(
            *(torch.tensor(given[name]) for name in "qkv"),
            attn_mask=torch.tensor(np.where(seen, bias, np.float32(-np.inf))),
            enable_gqa=True,
        )
        got = run({**given, **({"mask": bias} if mask else {})})["y"]
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=tolerance("float32", 6 + t, 12.0))


def test_a_past_of_open_length() -> None:
    """With the past the queries are the last of a sequence: computed at once, these rows are the same."""
    once = ReferenceBackend().compile(graph_of({**OPEN}, "q k v", is_causal=1))
    past = {"pk": ("n", 2, "p", 6), "pv": ("n", 2, "p", 5)}
    step = ReferenceBackend().compile(graph_of({**OPEN, **past}, "q k v - pk pv", is_causal=1))
    for n, before, s in ((1, 4, 1), (2, 3, 3)):
        whole = values(n, before + s, before + s)
        parts = {name: x[:, :, before:] for name, x in whole.items()}
        cached = {f"p{name}": whole[name][:, :, :before] for name in "kv"}
        want = once(whole)["y"][:, :, before:]
        got = step({**parts, **cached})["y"]
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("float32", 6 + before + s, 12.0))


@pytest.mark.parametrize(
    ("shapes", "attributes", "said"),
    [
        ({}, {"softcap": -1.0}, "softcap=-1 must not be negative"),
        ({}, {"left_window_size": -2}, "left_window_size=-2"),
        ({}, {"qk_matmul_output_mode": 4}, "qk_matmul_output_mode=4"),
        ({"k": (1, 3, 5, 6), "v": (1, 3, 5, 6)}, {}, "4 heads of queries cannot share 3 heads"),
        ({"q": (1, 5, 24)}, {}, "attribute q_num_heads=None"),
        ({"q": (1, 5, 24)}, {"q_num_heads": 5}, "q_num_heads=5 does not divide"),
        ({"q": (24,)}, {}, "must have 3 or 4 dimensions"),
    ],
    ids=str,
)
def test_what_is_refused(shapes: dict[str, tuple[int | str, ...]], attributes: dict[str, Any], said: str) -> None:
    known: dict[str, tuple[int | str, ...]] = {"q": (1, 4, 5, 6), "k": (1, 2, 5, 6), "v": (1, 2, 5, 6)}
    with pytest.raises(ModelError, match=said):
        graph_of({**known, **shapes}, "q k v", **attributes)
