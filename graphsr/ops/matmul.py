"""Products of two arrays that may both be computed: matrices, batches of them, and sums over named axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.dim import Size, product
from graphsr.ir import TensorType
from graphsr.op import Array, Op, expect, expect_float, expect_size, op, same_dtype, unbroadcast
from graphsr.ops.elementwise import broadcast

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXY"
"""What stands for the axes of an ellipsis; an equation may use the small letters."""


@op("matmul")
@dataclass(frozen=True, slots=True)
class MatMul(Op):
    """y[…, i, j] = Σ_k a[…, i, k] · b[…, k, j], the axes … broadcast; da = dy·bᵀ, db = aᵀ·dy.

    As in NumPy, a vector stands for a row on the left, for a column on the right, and its axis leaves the result.
    (`Dense` is the product with a known weight.)

    >>> MatMul().forward(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))
    array([[11.]])
    """

    def infer(self, a: TensorType, b: TensorType) -> TensorType:
        dtype = same_dtype(a, b)
        expect(dtype != "bool", "products of bool are not defined")
        expect(a.rank >= 1 and b.rank >= 1, f"at least one dimension is needed, got {a} and {b}")
        left = (1, *a.shape) if a.rank == 1 else a.shape
        right = (*b.shape, 1) if b.rank == 1 else b.shape
        expect_size("number of rows of the second matrix", right[-2], left[-1])
        rows, columns = left[-2:-1] * (a.rank > 1), right[-1:] * (b.rank > 1)
        return TensorType(dtype, (*broadcast(left[:-2], right[:-2]), *rows, *columns))

    def forward(self, a: Array, b: Array) -> Array:
        return np.asarray(a @ b)

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        a, b = inputs
        left, right = a[None] if a.ndim == 1 else a, b[:, None] if b.ndim == 1 else b
        dy = cotangent[..., None] if b.ndim == 1 else cotangent
        dy = dy[..., None, :] if a.ndim == 1 else dy
        d_left = unbroadcast(dy @ right.swapaxes(-1, -2), left.shape)
        d_right = unbroadcast(left.swapaxes(-1, -2) @ dy, right.shape)
        return d_left.reshape(a.shape), d_right.reshape(b.shape)

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        return output.size * inputs[0].shape[-1]

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None


@op("einsum")
@dataclass(frozen=True, slots=True)
class Einsum(Op):
    """y[output letters] = Σ over all other letters of the product of the inputs, each indexed by its letters.

    "bij,bjk->bik" is a product of batches of matrices. Letters are a…z; "..." stands for further axes, which are
    broadcast; without "->" the result has the letters that occur once, in alphabetical order (as in NumPy and ONNX).
    The gradient of an input is the sum of dy times the other inputs, indexed by the letters of that input. It is
    repeated along letters that no other array has, and lies on the diagonal of a letter that the input has twice.

    >>> Einsum("ij,j->i").forward(np.array([[1.0, 2.0]]), np.array([3.0, 4.0]))
    array([11.])
    """

    equation: str

    def infer(self, *inputs: TensorType) -> TensorType:
        dtype = same_dtype(*inputs)
        expect_float(*inputs)
        terms, result = self._letters(tuple(x.rank for x in inputs))
        sizes: dict[str, Size] = {}
        for term, x in zip(terms, inputs, strict=True):
            for letter, size in zip(term, x.shape, strict=True):
                if letter in LETTERS:
                    (sizes[letter],) = broadcast((sizes.get(letter, 1),), (size,))
                else:
                    expect_size(f"size of {letter!r}", size, sizes.setdefault(letter, size))
        return TensorType(dtype, tuple(sizes[letter] for letter in result))

    def forward(self, *inputs: Array) -> Array:
        terms, result = self._letters(tuple(x.ndim for x in inputs))
        return np.asarray(np.einsum(f"{','.join(terms)}->{result}", *inputs))

    def vjp(self, inputs: tuple[Array, ...], output: Array, cotangent: Array) -> tuple[Array | None, ...]:
        terms, result = self._letters(tuple(x.ndim for x in inputs))
        gradients = []
        for i, (term, x) in enumerate(zip(terms, inputs, strict=True)):
            other_terms, others = terms[:i] + terms[i + 1 :], inputs[:i] + inputs[i + 1 :]
            own = "".join(dict.fromkeys(term))
            shared = "".join(c for c in own if c in set(result).union(*other_terms))
            d_shared = np.einsum(f"{','.join([result, *other_terms])}->{shared}", cotangent, *others)
            d_own = np.expand_dims(d_shared, tuple(k for k, c in enumerate(own) if c not in shared))
            dx = np.zeros(x.shape, cotangent.dtype)
            diagonal = np.einsum(f"Z{term}->Z{own}", dx[None])  # a view of dx
            stretched = tuple(k for k, n in enumerate(diagonal.shape[1:]) if n == 1)
            diagonal[0, ...] = d_own.sum(axis=stretched, keepdims=True)
            gradients.append(dx)
        return tuple(gradients)

    def _letters(self, ranks: tuple[int, ...]) -> tuple[list[str], str]:
        """The letters of every input and of the result, the axes of "..." named by capital letters."""
        left, arrow, result = self.equation.replace(" ", "").partition("->")
        terms = left.split(",")
        expect(len(terms) == len(ranks), f"equation {self.equation!r} has {len(terms)} inputs, got {len(ranks)}")
        widest, named = 0, []
        for term, rank in zip(terms, ranks, strict=True):
            extra = rank - len(term.replace("...", ""))
            expect(
                extra == 0 or ("..." in term and extra > 0), f"{term!r} in {self.equation!r} does not fit rank {rank}"
            )
            widest = max(widest, extra)
            named.append((term, extra))
        expect(widest <= len(LETTERS), f"at most {len(LETTERS)} axes can be behind ... in {self.equation!r}")
        ellipsis = LETTERS[:widest]
        full = [term.replace("...", ellipsis[widest - extra :]) for term, extra in named]
        if not arrow:
            letters = [c for c in left if c not in ".,"]
            result = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        result = result.replace("...", ellipsis)
        used = set("".join(full))
        small = all(c in LETTERS or ("a" <= c <= "z") for c in "".join([*full, result]))
        expect(small and set(result) <= used and len(set(result)) == len(result), f"bad equation {self.equation!r}")
        return full, result

    def macs(self, inputs: tuple[TensorType, ...], output: TensorType) -> Size:
        """One product for each combination of all letters."""
        terms, result = self._letters(tuple(x.rank for x in inputs))
        sizes = {c: n for term, x in zip(terms, inputs, strict=True) for c, n in zip(term, x.shape, strict=True)}
        return output.size * product(n for c, n in sizes.items() if c not in result)

    def needs(self, low: int, high: int, axis: int, *types: TensorType) -> tuple[int, int] | None:
        return None
