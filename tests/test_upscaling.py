"""Images through a network: every layout and dtype, alpha, grey, range and rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as any_arrays

import graphsr
from graphsr.backend import MUCH
from graphsr.backends.reference import ReferenceBackend
from graphsr.dim import Dim
from graphsr.imagefile import read_image
from graphsr.ir import Graph, Node, TensorType
from graphsr.memory import available_memory
from graphsr.metrics import paper, psnr
from graphsr.model import Model
from graphsr.ops import Add, Mul, Quantise, Resize
from graphsr.upscaling import Upscaler

from support import data_path


def nearest_x2(channels: int = 3, input_range: float = 255.0) -> Model:
    """A "network" whose answer is known: every pixel twice."""
    n, h, w = (Dim.symbol(name) for name in "NHW")
    x = Node.input("input", TensorType("float32", (n, channels, h, w)))
    y = Node(Resize(scale=(2.0, 2.0), mode="nearest", coordinates="asymmetric"), (x,))
    return Model(Graph((x,), {"output": y}), "nearest", scale=2, input_range=input_range)


def twice(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)


LAYOUTS = [(), (1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_layout_and_dtype_are_kept(layout: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    shape = (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)), *layout)
    elements = None if dtype.startswith("u") else st.floats(0, 1, width=32)
    image = data.draw(any_arrays(np.dtype(dtype), shape, elements=elements))
    input_range = data.draw(st.sampled_from([1.0, 255.0]))
    got = Upscaler(nearest_x2(input_range=input_range), backend="reference")(image)
    want = twice(image)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    colours = slice(None) if layout in ((), (1,), (3,)) else slice(0, -1)
    difference = np.abs(got.astype("float64") - want.astype("float64"))
    # float32 carries 24 bits, so 8 and 16 bit values come back exactly
    assert difference[..., colours].max() <= (0 if dtype.startswith("u") else 4 * np.finfo("float32").eps)


def test_opaque_alpha_stays_opaque() -> None:
    image = np.full((5, 4, 4), 65535, dtype=np.uint16)
    assert (Upscaler(nearest_x2(), backend="reference")(image)[..., 3] == 65535).all()


def test_one_channel_network_keeps_colour() -> None:
    image = np.zeros((6, 6, 3), dtype=np.uint8)
    image[..., 0] = 200
    got = Upscaler(nearest_x2(channels=1), backend="reference")(image)
    assert (got == twice(image)).all()


def test_values_are_clipped_not_wrapped() -> None:
    """A network that overshoots gives white, not black."""
    x = Node.input("input", TensorType("float32", (1, 3, Dim.symbol("H"), Dim.symbol("W"))))
    y = Node(Add(), (x, Node.const(np.full((1, 1, 1, 1), 100, dtype=np.float32))))
    model = Model(Graph((x,), {"output": y}), "brighter", scale=1)
    image = np.array([[0, 100, 200]], dtype=np.uint8)
    assert Upscaler(model, backend="reference")(image).tolist() == [[100, 200, 255]]


@pytest.mark.parametrize("backend", ["reference", "numpy", "llvm"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_pixels_are_the_rounded_output_of_the_network(backend: str, data: st.DataObject) -> None:
    """The conversions in place against the same in float64 and with a copy for each step: equal to the last bit."""
    dtype, white = data.draw(st.sampled_from([("uint8", 255.0), ("uint16", 65535.0)]))
    image = data.draw(any_arrays(np.dtype(dtype), (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6)), 3)))
    gain = data.draw(any_arrays(np.dtype("float32"), (1, 3, 1, 1), elements=st.floats(-3, 3, width=32)))
    input_range = data.draw(st.sampled_from([1.0, 255.0]))
    n, h, w = (Dim.symbol(name) for name in "NHW")
    x = Node.input("input", TensorType("float32", (n, 3, h, w)))
    graph = Graph((x,), {"output": Node(Mul(), (x, Node.const(gain)))})
    upscaler = Upscaler(Model(graph, "gains", scale=1, input_range=input_range), backend=backend)
    before = image.copy()
    planes = (image.transpose(2, 0, 1)[None] / white).astype(np.float32) * np.float32(input_range)
    output = upscaler.executable({"input": planes})["output"] / np.float32(input_range)
    want = np.rint(np.clip(output[0].transpose(1, 2, 0), 0, 1) * white).astype(dtype)
    np.testing.assert_array_equal(upscaler(image), want, strict=True)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_value_is_divided_by_white_as_in_float64(dtype: str) -> None:
    white = np.iinfo(dtype).max
    values = np.arange(white + 1).astype(dtype)
    single = np.divide(values, np.float32(white), dtype=np.float32)
    np.testing.assert_array_equal(single, (values / float(white)).astype(np.float32))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), dtype=np.int32), "uint8, uint16, float32 or float64"),
        (np.zeros((4, 4, 5), dtype=np.uint8), "HxWx4"),
        (np.zeros((0, 4), dtype=np.uint8), "HxW"),
        (np.zeros(4, dtype=np.uint8), "HxW"),
        ([[1, 2]], "NumPy array"),
        (np.full((4, 4), np.nan, dtype=np.float32), "NaN"),
        (np.full((4, 4), 254, dtype=np.float32), "white is 1"),
    ],
)
def test_other_arrays_are_refused(image: np.ndarray, words: str) -> None:
    with pytest.raises(graphsr.ImageError, match=words):
        Upscaler(nearest_x2(), backend="reference")(image)


def test_a_model_that_is_no_upscaler_is_refused() -> None:
    x = Node.input("input", TensorType("float32", (1, 3, 4, 4)))
    with pytest.raises(graphsr.ModelError, match="not an image upscaler"):
        Upscaler(Model(Graph((x,), {"output": x}), "nothing"), backend="reference")


def test_a_model_that_misstates_its_scale_is_refused() -> None:
    with pytest.raises(graphsr.ModelError, match="says x3"):
        Upscaler(replace(nearest_x2(), scale=3), backend="reference")


@pytest.mark.parametrize("backend", ["reference", "numpy", "llvm"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_network_that_gives_no_numbers_is_refused(dtype: str, layout: tuple[int, ...], backend: str) -> None:
    """Wherever the one wrong pixel is, also where clipping would make a plausible one of it."""
    x = Node.input("input", TensorType("float32", (1, 3, 2, 3)))
    image = np.ones((2, 3, *layout), dtype)
    for wrong, place in ((np.nan, 0), (np.inf, 7), (-np.inf, 17)):
        offset = np.zeros((1, 3, 2, 3), dtype=np.float32)
        offset.flat[place] = wrong
        graph = Graph((x,), {"output": Node(Add(), (x, Node.const(offset)))})
        with pytest.raises(graphsr.ImageError, match="NaN or infinite pixels"):
            Upscaler(Model(graph, "broken", scale=1), backend=backend)(image)


class WithoutPixels(ReferenceBackend):
    """Somebody's backend that has no op for the pixels of pictures."""

    def supports(self, node: Node) -> bool:
        return not isinstance(node.op, Quantise)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_backend_needs_no_op_for_pixels(dtype: str) -> None:
    image = np.arange(60, dtype=dtype).reshape(4, 5, 3)
    np.testing.assert_array_equal(Upscaler(nearest_x2(), backend=WithoutPixels())(image), twice(image))


def test_too_large_for_memory_is_refused_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(nearest_x2(), backend="reference")
    for free in (1000, 200_000):  # less than one value, and than all of them
        monkeypatch.setattr("graphsr.memory.available_memory", lambda free=free: free)
        with pytest.raises(graphsr.ImageError, match="GB are free"):
            upscaler(np.zeros((64, 64), dtype=np.uint8))


@pytest.mark.parametrize("backend", ["llvm", "numpy", "reference"])
def test_a_run_that_does_not_fit_is_refused_when_it_is_bound(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """By what is planned: more than the largest value where many live, less where a kernel never makes it."""
    run = graphsr.load("wdsr-x2").compile(backend, threads=1)
    planned = run.bind({"input": (1, 3, 130, 120)}).planned_bytes
    again = graphsr.load("wdsr-x2").compile(backend, threads=1)
    monkeypatch.setattr("graphsr.memory.available_memory", lambda: planned - 1000)
    with pytest.raises(graphsr.ShapeError, match=r"too large: a run needs .* GB are free"):
        again.bind({"input": (1, 3, 130, 120)})
    monkeypatch.setattr("graphsr.memory.available_memory", lambda: planned)
    assert again.bind({"input": (1, 3, 130, 120)}).planned_bytes == planned


def test_memory_that_runs_have_left_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    run = graphsr.load("wdsr-x2").compile("llvm", threads=1)
    run({"input": np.zeros((1, 3, 130, 120), np.float32)})
    smaller = graphsr.load("wdsr-x2").compile("llvm", threads=1).bind({"input": (1, 3, 120, 120)}).planned_bytes
    monkeypatch.setattr("graphsr.memory.available_memory", lambda: smaller // 2)
    assert run.bind({"input": (1, 3, 120, 120)}).planned_bytes == smaller


def test_a_second_large_image_takes_what_the_first_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(graphsr.load("wdsr-x2"), backend="llvm", threads=1)
    image = np.zeros((130, 120, 3), np.uint8)
    first = upscaler(image)
    monkeypatch.setattr("graphsr.memory.available_memory", lambda: first.nbytes + 4096)
    np.testing.assert_array_equal(upscaler(image), first)


def test_memory_that_has_gone_since_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only when a size is new."""
    run = graphsr.load("wdsr-x2").compile("numpy", threads=1)
    image = np.zeros((1, 3, 320, 320), np.float32)
    planned = run.bind({"input": image.shape}).planned_bytes
    assert planned > MUCH
    monkeypatch.setattr("graphsr.memory.available_memory", lambda: planned // 2)
    with pytest.raises(graphsr.ShapeError, match=r"a run needs .* GB are free; give smaller ones"):
        run({"input": image})


@pytest.mark.skipif(available_memory() is None, reason="the system does not tell how much memory there is")
def test_no_time_is_spent_on_a_plan_that_cannot_be() -> None:
    """Planned in earnest, an image of 10^10 x 10^10 pixels would take for ever."""
    with pytest.raises(graphsr.ShapeError, match="GB are free"):
        graphsr.load("wdsr-x2").compile().bind({"input": (1, 3, 10**10, 10**10)})


@pytest.mark.parametrize(("scale", "gain"), [(2, 1.5), (4, 1.2)])
def test_embedded_models_beat_bicubic_on_set5(scale: int, gain: float) -> None:
    """Mean PSNR of luma, `scale` pixels of border cut. The interpolation alone reaches 33.97 and 28.63 dB."""
    ours, bicubic = [], []
    for name in ("baby", "bird", "butterfly", "head", "woman"):
        low = read_image(data_path(f"images/set5_lr_x{scale}/{name}.png")).pixels
        big = graphsr.upscale(low, model=f"wdsr-x{scale}")
        high = read_image(data_path(f"images/set5/{name}.bmp")).pixels[: big.shape[0], : big.shape[1]]
        smooth = Resize(scale=(scale, scale), mode="cubic").forward(low.transpose(2, 0, 1)[None].astype(np.float32))
        rounded = np.clip(np.rint(smooth[0].transpose(1, 2, 0)), 0, 255).astype(np.uint8)
        ours.append(psnr(big, high, paper(scale)))
        bicubic.append(psnr(rounded, high, paper(scale)))
    assert np.mean(bicubic) == pytest.approx({2: 33.97, 4: 28.63}[scale], abs=0.01)
    assert np.mean(ours) >= np.mean(bicubic) + gain


def test_backends_agree_on_a_real_picture() -> None:
    low = read_image(data_path("images/set5_lr_x4/butterfly.png")).pixels
    a, b = (graphsr.upscale(low, model="wdsr-x2", backend=name).astype(int) for name in ("reference", "numpy"))
    assert np.abs(a - b).max() <= 1  # one grey level, where a value lies on the edge of rounding
