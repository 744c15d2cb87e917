"""Detection: decoding and suppression against darknet's loops written out, letterbox, drawing, and a real detector."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphsr.backend import backends
from graphsr.detection import Detection, Detector, NamesError, image_planes, place, read_names
from graphsr.detection_boxes import KINDS, Candidates, candidates, overlaps, suppress
from graphsr.detection_drawing import class_colour, draw_detections
from graphsr.errors import ImageError, ModelError
from graphsr.imagefile import read_image
from graphsr.ir import Graph, Node, TensorType
from graphsr.model import Model
from graphsr.ops import Conv2d, GaussianYoloHead, GridHead, RegionHead, Relu, YoloHead
from graphsr.testing import arrays

from support import data_path

ANCHORS = ((10.0, 20.0), (30.0, 5.0))
SIZE = (64, 96)
"""Height and width of the network's input."""

Box = tuple[float, float, float, float]

# --- decoding


def expected_boxes(head: YoloHead | GaussianYoloHead | RegionHead, y: np.ndarray, threshold: float) -> list[Any]:
    """(box, objectness, scores) by cell and anchor, as get_yolo_detections and its relatives."""
    found = []
    _, _, rows, columns = y.shape
    for row, column, n in np.ndindex(rows, columns, len(head.anchors)):
        t = y[0, n * head.entries : (n + 1) * head.entries, row, column].astype(float)
        aw, ah = head.anchors[n]
        certain = 1.0
        match head:
            case YoloHead(new_coords=new):
                x, y_, obj, classes = t[0], t[1], t[4], t[5:]
                w = (4 * t[2] ** 2 if new else np.exp(t[2])) * aw / SIZE[1]
                h = (4 * t[3] ** 2 if new else np.exp(t[3])) * ah / SIZE[0]
            case GaussianYoloHead():
                x, y_, obj, classes = t[0], t[2], t[8], t[9:]
                w, h = np.exp(t[4]) * aw / SIZE[1], np.exp(t[6]) * ah / SIZE[0]
                certain = 1 - (t[1] + t[3] + t[5] + t[7]) / 4
            case _:
                x, y_, obj, classes = t[0], t[1], t[head.coords], t[head.coords + 1 :]
                w, h = np.exp(t[2]) * aw / columns, np.exp(t[3]) * ah / rows
        cx, cy = (column + x) / columns, (row + y_) / rows
        if isinstance(head, GaussianYoloHead) and head.point != "center":
            side = 0.5 if head.point == "left_top" else -0.5
            cx, cy = cx + side * w, cy + side * h
        obj = 1.0 if isinstance(head, RegionHead) and head.background else obj
        scores = [p if (p := obj * c * certain) > threshold else 0.0 for c in classes]
        if obj > threshold:
            found.append(((cx, cy, w, h), obj, scores))
    return found


HEADS = [
    YoloHead(ANCHORS, 2, 1.05),
    YoloHead(ANCHORS, 2, 2.0, new_coords=True),
    GaussianYoloHead(ANCHORS, 2),
    GaussianYoloHead(ANCHORS, 2, point="left_top"),
    GaussianYoloHead(ANCHORS, 2, point="right_bottom"),
    RegionHead(ANCHORS, 2, softmax=True),
    RegionHead(ANCHORS, 2, coords=6),
    RegionHead(ANCHORS, 2, softmax=True, background=True),
]


@pytest.mark.parametrize("head", HEADS, ids=str)
@settings(max_examples=10)
@given(data=st.data())
def test_boxes_are_decoded_as_in_darknet(head: YoloHead, data: st.DataObject) -> None:
    x = data.draw(arrays((1, 2 * head.entries, 2, 3)))
    y = head.forward(x)
    found, want = candidates(head, y, SIZE, 0.3), expected_boxes(head, y, 0.3)
    np.testing.assert_allclose(found.boxes, np.reshape([box for box, _, _ in want], (-1, 4)), rtol=1e-6)
    np.testing.assert_allclose(found.objectness, [objectness for _, objectness, _ in want], rtol=1e-6)
    np.testing.assert_allclose(found.scores, np.reshape([scores for _, _, scores in want], (-1, 2)), rtol=1e-6)


def test_the_grid_of_the_first_yolo() -> None:
    head = GridHead(side=2, boxes=1, classes=1, squared=True)
    y = np.zeros((1, 24, 1, 1))
    y[0, 2], y[0, 6] = 0.5, 0.8  # the third cell: lower left
    y[0, 8 + 4 * 2 : 8 + 4 * 3, 0, 0] = 0.5, 0.25, 0.5, 0.1
    found = candidates(head, y, SIZE, 0.1)
    np.testing.assert_allclose(found.boxes, [[0.25, 0.625, 0.25, 0.01]])
    np.testing.assert_allclose(found.scores, [[0.4]])


def test_the_class_of_a_tree() -> None:
    """a(a1, a2), b: as specific as it is probable; darknet multiplies the probabilities of the ancestors in again."""
    head = RegionHead(((1.0, 1.0),), 4, tree=(2, 2), parents=(-1, -1, 0, 0))
    y = np.zeros((1, 9, 1, 2))
    y[0, 4] = 0.9
    y[0, 5:, 0, 0] = 0.95, 0.05, 0.1, 0.9  # surely a, surely a2
    y[0, 5:, 0, 1] = 0.95, 0.05, 0.5, 0.5  # surely a, but which?
    np.testing.assert_allclose(candidates(head, y, SIZE, 0.3).scores, [[0, 0, 0, 0.9], [0.9, 0, 0, 0]])


def test_boxes_that_are_no_numbers_are_dropped() -> None:
    head = YoloHead(((8.0, 8.0),), 1)
    y = np.full((1, 6, 1, 3), 0.9, np.float32)
    y[0, 2, 0] = np.nan, 1e4, 0
    assert len(candidates(head, y, SIZE, 0.25).boxes) == 1


# --- suppression


def iou(a: Box, b: Box) -> float:
    """darknet's box_iou, side by side."""
    sides = []
    for axis in (0, 1):
        left = max(a[axis] - a[2 + axis] / 2, b[axis] - b[2 + axis] / 2)
        right = min(a[axis] + a[2 + axis] / 2, b[axis] + b[2 + axis] / 2)
        sides.append(right - left)
    inner = sides[0] * sides[1] if min(sides) >= 0 else 0
    union = a[2] * a[3] + b[2] * b[3] - inner
    return inner / union if inner and union else 0


def diou(a: Box, b: Box, beta: float) -> float:
    diagonal = 0.0
    for axis in (0, 1):
        low = min(a[axis] - a[2 + axis] / 2, b[axis] - b[2 + axis] / 2)
        high = max(a[axis] + a[2 + axis] / 2, b[axis] + b[2 + axis] / 2)
        diagonal += (high - low) ** 2
    distance = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
    return iou(a, b) - ((distance / diagonal) ** beta if diagonal else 0)


def darknet_suppression(boxes: list[Box], scores: list[list[float]], limit: float, kind: str, beta: float) -> None:
    """do_nms_sort and diounms_sort: two loops over the sorted boxes for each class; changes the scores."""
    for k in range(len(scores[0])):
        order = sorted(range(len(boxes)), key=lambda i: -scores[i][k])
        for place_, i in enumerate(order):
            if scores[i][k] == 0:
                continue
            for j in order[place_ + 1 :]:
                exponent = {"greedynms": 0.6, "diounms": beta}.get(kind)
                overlap = diou(boxes[i], boxes[j], exponent) if exponent else iou(boxes[i], boxes[j])
                if overlap > limit:
                    scores[j][k] = 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "objectness"])
@settings(max_examples=40)
@given(data=st.data())
def test_suppression_is_darknets(kind: str, data: st.DataObject) -> None:
    count, beta = data.draw(st.integers(1, 8)), data.draw(st.sampled_from([0.6, 1.0]))
    side = st.sampled_from([0.1, 0.2, 0.4, 0.7])
    boxes = [data.draw(st.tuples(side, side, side, side)) for _ in range(count)]
    ranks = np.array(data.draw(st.permutations(range(2 * count)))).reshape(count, 2)  # no two scores are equal
    scores = np.where(ranks % 5 == 0, 0, 0.3 + ranks / 100)
    want = scores.tolist()
    darknet_suppression(boxes, want, 0.45, kind, beta)
    got = suppress(Candidates(np.array(boxes), scores.max(axis=1), scores), 0.45, kind, beta)
    np.testing.assert_array_equal(got.scores, want)


def test_suppression_by_objectness_takes_all_classes() -> None:
    boxes = np.array([[0.5, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.38], [0.1, 0.1, 0.1, 0.1]])
    scores = np.array([[0.9, 0], [0, 0.8], [0.3, 0.3]])
    got = suppress(Candidates(boxes, np.array([0.9, 0.8, 0.3]), scores), 0.45, "objectness")
    np.testing.assert_array_equal(got.scores, [[0.9, 0], [0, 0], [0.3, 0.3]])


def test_overlap_of_boxes_without_area() -> None:
    point = np.array([0.5, 0.5, 0.0, 0.0])
    assert overlaps(point, point[None]) == overlaps(point, point[None], 0.6) == 0


# --- the image


def darknet_resize(image: np.ndarray, w: int, h: int) -> np.ndarray:
    """darknet's resize_image: first along rows, then along columns, (size − 1)/(new size − 1) from pixel to pixel."""
    c, ih, iw = image.shape
    rows = np.zeros((c, ih, w))
    for x in range(w):
        if x == w - 1 or iw == 1:
            rows[:, :, x] = image[:, :, iw - 1]
        else:
            at = x * (iw - 1) / (w - 1)
            rows[:, :, x] = (1 - (at - int(at))) * image[:, :, int(at)] + (at - int(at)) * image[:, :, int(at) + 1]
    out = np.zeros((c, h, w))
    for y in range(h):
        at = y * (ih - 1) / (h - 1) if h > 1 else 0
        out[:, y] = (1 - (at - int(at))) * rows[:, int(at)]
        if y < h - 1 and ih > 1:
            out[:, y] += (at - int(at)) * rows[:, int(at) + 1]
    return out


@settings(max_examples=30)
@given(data=st.data())
def test_letterbox(data: st.DataObject) -> None:
    size = data.draw(st.tuples(st.integers(2, 9), st.integers(2, 9)))
    target = data.draw(st.tuples(st.integers(2, 12), st.integers(2, 12)))
    image = data.draw(arrays((3, *size)))
    stretched, whole = place(image, target, letterbox=False)
    np.testing.assert_allclose(stretched[0], darknet_resize(image, target[1], target[0]), atol=1e-5)
    assert (whole.width, whole.height) == (1, 1)
    boxed, placement = place(image, target, letterbox=True)
    h, w = round(placement.height * target[0]), round(placement.width * target[1])
    assume(min(h, w) > 1)  # darknet divides by 0 there
    top, left = (target[0] - h) // 2, (target[1] - w) // 2
    np.testing.assert_allclose(boxed[0, :, top : top + h, left : left + w], darknet_resize(image, w, h), atol=1e-5)
    rest = boxed[0].copy()
    rest[:, top : top + h, left : left + w] = 0.5
    np.testing.assert_array_equal(rest, np.full_like(rest, 0.5))
    assert h == target[0] or w == target[1]


def test_a_box_goes_back_to_its_place_in_the_image() -> None:
    """An image of 100 x 50 in a square: bars above and below."""
    _, placement = place(np.zeros((3, 50, 100), np.float32), (64, 64), letterbox=True)
    np.testing.assert_allclose(placement.undo(np.array([[0.5, 0.5, 1.0, 0.5]])), [[0.5, 0.5, 1.0, 1.0]])
    np.testing.assert_allclose(placement.undo(np.array([[0.25, 0.25, 0.5, 0.25]])), [[0.25, 0, 0.5, 0.5]])


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_any_image(shape: tuple[int, ...], dtype: str) -> None:
    white = np.iinfo(dtype).max if dtype.startswith("u") else 1
    for channels in (1, 3):
        planes = image_planes(np.full(shape, white, dtype), channels)
        assert planes.shape == (channels, 4, 5)
        np.testing.assert_allclose(planes, 1, rtol=1e-6)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 5, 5)), np.zeros(4), np.zeros((0, 5)), np.zeros((4, 5), np.int64), np.full((4, 5), np.nan)]
)
def test_what_is_no_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ImageError):
        image_planes(image, 3)


# --- the detector


def test_models_that_detect_nothing_are_refused() -> None:
    x = Node.input("input", TensorType("float32", (1, 3, 4, 4)))
    with pytest.raises(ModelError, match="no detection head"):
        Detector(Model(Graph((x,), {"output": Node(Relu(), (x,))}), "test"))
    x = Node.input("input", TensorType("float32", (1, 6, 4, 4)))
    head = Node(YoloHead(((1.0, 1.0),), 1), (x,))
    with pytest.raises(ModelError, match="takes"):
        Detector(Model(Graph((x,), {"output": head}), "test"))


def test_names_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.names"
    path.write_text("dog\n\n  traffic light \n")
    assert read_names(path) == ("dog", "traffic light")
    with pytest.raises(ModelError, match="cannot be read"):
        read_names(tmp_path / "absent")


@pytest.mark.parametrize("data", [b"", b"\n \r\n", b"\x89PNG\r\n\x1a\n\0\0", b"a\x1b[2Jb\n"])
def test_what_is_no_list_of_names_is_refused(tmp_path: Path, data: bytes) -> None:
    """A picture, say; names go to the terminal."""
    path = tmp_path / "x.names"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="a line of text for each class"):
        read_names(path)


def test_names_of_another_network_are_refused() -> None:
    x = Node.input("input", TensorType("float32", (1, 3, 2, 2)))
    weight = Node.const(np.zeros((7, 3, 1, 1), np.float32))
    head = Node(YoloHead(((1.0, 1.0),), 2), (Node(Conv2d(), (x, weight)),))
    model = Model(Graph((x,), {"output": head}), "test")
    for names in (["dog"], ["dog", "cat", "car"]):
        with pytest.raises(NamesError, match=f"2 classes, {len(names)} names"):
            Detector(model, names=names, size=(2, 2))
    assert Detector(model, names=["dog", "cat"], size=(2, 2), backend="reference").names == ("dog", "cat")


def test_boxes_are_drawn_in_the_colour_of_their_class() -> None:
    pytest.importorskip("PIL")
    image = np.zeros((60, 80), np.uint16)
    drawn = draw_detections(image, [Detection(3, "dog", 0.5, 10.0, 20.0, 50.0, 55.0)])
    assert (drawn.shape, drawn.dtype.name) == ((60, 80, 3), "uint8")
    assert tuple(drawn[54, 30]) == tuple(drawn[40, 10]) == class_colour(3)
    assert not drawn[40, 30].any()
    assert not image.any()
    edge = Detection(0, "a rather long name at the edge", 1.0, 70.0, 0.0, 80.0, 60.0)
    assert draw_detections(image, [edge]).any()


@pytest.fixture
def yolo_fastest() -> Model:
    from graphsr.importers.darknet_file import load

    return load(data_path("darknet/yolo-fastest-1.1.cfg"))


def test_dog_bicycle_and_car_are_found(yolo_fastest: Model) -> None:
    image = read_image(data_path("darknet/dog.jpg")).pixels
    names = read_names(data_path("darknet/coco.names"))
    for letterbox in (False, True):
        best = {d.name: d for d in reversed(Detector(yolo_fastest, names=names, letterbox=letterbox, threads=1)(image))}
        dog, bicycle, car = best["dog"], best["bicycle"], best.get("truck", best["car"])
        assert iou(centred(dog), centred((128, 220, 310, 540))) > 0.5
        assert iou(centred(bicycle), centred((120, 125, 570, 430))) > 0.4
        assert iou(centred(car), centred((470, 80, 690, 170))) > 0.5


def centred(box: Detection | Box) -> Box:
    """(x, y, w, h) of a box by its edges."""
    left, top, right, bottom = (box.left, box.top, box.right, box.bottom) if isinstance(box, Detection) else box
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top


def test_another_size_and_threshold(yolo_fastest: Model) -> None:
    image = read_image(data_path("darknet/dog.jpg")).pixels
    found = Detector(yolo_fastest, size=(256, 416), threshold=0.5, threads=1)(image)
    assert found
    assert all(d.score > 0.5 and d.name == f"class {d.label}" for d in found)
    assert [d.score for d in found] == sorted((d.score for d in found), reverse=True)


@pytest.mark.parametrize("backend", sorted(backends()))
def test_the_whole_network_agrees_with_the_reconstruction(yolo_fastest: Model, backend: str) -> None:
    pytest.importorskip("torch")
    from darknet_torch import Darknet

    cfg = data_path("darknet/yolo-fastest-1.1.cfg")
    numbers = np.frombuffer(cfg.with_suffix(".weights").read_bytes(), "<f4", offset=20)
    planes = image_planes(read_image(data_path("darknet/dog.jpg")).pixels, 3)
    x, _ = place(planes, (320, 320), letterbox=False)
    want = Darknet(cfg.read_text(), numbers, "alexeyab").run(x)
    got = yolo_fastest.compile(backend, 1)({"input": x})
    assert set(got) == {"yolo_121", "yolo_130"}
    for name, y in got.items():
        # 80 layers of float32 beside double precision, on values of about 10
        np.testing.assert_allclose(y, want[int(name[5:])], rtol=0, atol=80 * 64 * float(np.finfo("f4").eps) * 10)


def test_the_command(tmp_path: Path) -> None:
    cfg, image = data_path("darknet/yolo-fastest-1.1.cfg"), data_path("darknet/dog.jpg")
    words = ["detect", image, "--cfg", cfg, "--weights", cfg.with_suffix(".weights"), "-j", 1]
    words += [
        "--names",
        data_path("darknet/coco.names"),
        "-o",
        tmp_path / "boxes.png",
        "--json",
        tmp_path / "new" / "boxes.json",
    ]
    done = graphsr(*words)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = json.loads((tmp_path / "new" / "boxes.json").read_text())
    names = [d["name"] for d in found["detections"]]
    assert {"dog", "bicycle", "car"} <= set(names)
    assert all(name in done.stdout for name in names)
    assert (found["width"], found["height"]) == (768, 576)
    drawn, plain = read_image(tmp_path / "boxes.png").pixels, read_image(image).pixels
    assert drawn.shape == plain.shape
    assert 0.001 < (drawn != plain).any(axis=2).mean() < 0.2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--cfg", "absent.cfg"], 3, "neither a file nor an embedded model"),
        (["--cfg", "wdsr-x2"], 3, "no detection head"),
        (["--cfg", "x", "--threshold", "2"], 2, "expected a number in 0..1"),
        (["--cfg", "x", "--size", "416"], 2, "expected height and width"),
        ([], 2, "--cfg"),
    ],
)
def test_the_command_refuses(words: list[str], code: int, text: str) -> None:
    done = graphsr("detect", "x.png", *words)
    assert done.returncode == code
    assert text in done.stderr


def graphsr(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "graphsr", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
