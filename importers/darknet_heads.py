"""darknet's layers at the end of a network: softmax and the heads of its detectors."""

from __future__ import annotations

from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from graphsr.errors import ModelError
from graphsr.ir import Node
from graphsr.ops import Concat, GaussianYoloHead, GridHead, RegionHead, Slice, Softmax, YoloHead
from graphsr.ops.detection import POINTS, SUPPRESSION, Anchors

from .byte_source import open_source
from .darknet_grammar import Section
from .darknet_network import Network, section

MAX_TREE = 1 << 22
"""Bytes of a file of classes."""
MAX_CLASSES = 1 << 16

_YOLO = """
    max ignore_thresh truth_thresh jitter resize random show_details max_delta counters_per_class
    label_smooth_eps objectness_smooth iou_normalizer obj_normalizer cls_normalizer delta_normalizer
    iou_loss iou_thresh_kind iou_thresh focal_loss track_history_size sim_thresh dets_for_track
    dets_for_show track_ciou_norm embedding_layer map
"""
_V1 = "rescore coord_scale object_scale noobject_scale class_scale mask_scale jitter resize random max forced reorg"


@section("softmax", "soft", ignored="noloss")
def softmax(net: Network, s: Section) -> Node:
    """Over all values of an image, in `groups` equal parts, or one part per group of a tree of classes."""
    groups, temperature = s.integer("groups", 1, 1), s.number("temperature", 1.0)
    c, h, w = net.sizes(net.x)
    tree = s.text("tree")
    if s.flag("spatial"):
        net.notes.append(f"line {s.line}: [softmax] spatial=1 is ignored, as by darknet on a CPU")
    if temperature <= 0:
        raise s.error("the temperature must be positive", "temperature")
    if tree:
        return _tree_softmax(net, s, tree, temperature)
    if c * h * w % groups:
        raise s.error(f"{c * h * w} values do not divide into {groups} groups", "groups")
    rows = net.reshape(net.x, groups, c * h * w // groups, part="groups")
    return net.reshape(net.node(Softmax(-1, temperature), rows, part="softmax"), c, h, w)


def _tree_softmax(net: Network, s: Section, file: str, temperature: float) -> Node:
    c, h, w = net.sizes(net.x)
    sizes, _ = read_tree(net, s, file)
    if sum(sizes) != c * h * w:
        raise s.error(f"the tree has {sum(sizes)} classes, the layer before gives {c * h * w} values", "tree")
    return softmax_by_group(net, sizes, temperature)


def softmax_by_group(net: Network, sizes: tuple[int, ...], temperature: float) -> Node:
    """One softmax per group of the values of an image, which are Σ sizes."""
    c, h, w = net.sizes(net.x)
    flat, parts = net.flat(net.x), []
    for i, (start, stop) in enumerate(pairwise(np.cumsum((0, *sizes)).tolist())):
        group = net.node(Slice((start,), (stop,), (1,), (1,)), flat, part=f"group{i}")
        parts.append(net.node(Softmax(-1, temperature), group, part=f"softmax{i}"))
    return net.reshape(net.node(Concat(1), *parts, part="all"), c, h, w)


def read_tree(net: Network, s: Section, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(group sizes, parents) of a file with one `label parent` per line, where groups are runs of equal parents.

    The path is relative to the folder of the cfg, or to the one above (darknet runs there); or the file lies beside the
    cfg. It is looked for nowhere else.
    """
    folder = net.settings.folder
    path = Path(name)
    if folder is None or path.is_absolute() or ".." in path.parts:
        raise s.error("a tree is read from the folder of the cfg only", "tree")
    places = (folder / path, folder.parent / path, folder / path.name)
    beside = next((place for place in places if place.is_file()), places[0])
    with open_source(beside, MAX_TREE) as source:
        lines = source.read(0, source.size, "tree").decode("latin-1").splitlines()
    try:
        parents = tuple(int(line.split()[1]) for line in lines if line.strip())
    except (IndexError, ValueError) as error:
        raise ModelError(f"{beside}: lines must be `label parent`: {error}") from error
    if not 0 < len(parents) <= MAX_CLASSES or not all(-1 <= p < i for i, p in enumerate(parents)):
        raise ModelError(f"{beside}: a parent must be −1 or the number of an earlier line, counted from 0")
    return groups_of(parents), parents


def groups_of(parents: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the groups of a tree: the lengths of the runs of equal parents."""
    return tuple(len(list(run)) for _, run in groupby(parents))


@section("yolo", ignored=_YOLO)
def yolo(net: Network, s: Section) -> Node:
    suppression = s.choice("nms_kind", "default", SUPPRESSION)
    stretch, new = s.number("scale_x_y", 1.0), s.flag("new_coords")
    head = YoloHead(masked_anchors(net, s), classes(s, 20), stretch, new, suppression, s.number("beta_nms", 0.6))
    return enter(net, s, head, len(head.anchors) * head.entries)


@section("Gaussian_yolo", ignored=f"{_YOLO} uc_normalizer")
def gaussian_yolo(net: Network, s: Section) -> Node:
    point = s.choice("yolo_point", "center", POINTS)
    suppression = s.choice("nms_kind", "default", SUPPRESSION)
    stretch, beta = s.number("scale_x_y", 1.0), s.number("beta_nms", 0.6)
    head = GaussianYoloHead(masked_anchors(net, s), classes(s, 20), stretch, point, suppression, beta)
    return enter(net, s, head, len(head.anchors) * head.entries)


def masked_anchors(net: Network, s: Section) -> Anchors:
    """The anchors that `mask` chooses of the `num` in `anchors`, which are 0.5 where the cfg lacks them."""
    total = s.integer("num", 1, 1, MAX_CLASSES)
    mask, listed = s.integers("mask") or tuple(range(total)), len(s.numbers("anchors")) // 2
    if total <= max(mask) < listed:
        net.notes.append(
            f"line {s.line}: [{s.name}] num={total} is less than mask asks for: all {listed} anchors count"
        )
        total = listed
    given = anchors(s, total)
    if not all(0 <= i < total for i in mask):
        raise s.error(f"there are {total} anchors, numbered from 0", "mask")
    return tuple(given[i] for i in mask)


def anchors(s: Section, total: int) -> Anchors:
    values = s.numbers("anchors")[: 2 * total]
    filled = [*values, *[0.5] * (2 * total - len(values))]
    return tuple(zip(filled[::2], filled[1::2], strict=True))


def classes(s: Section, default: int) -> int:
    return s.integer("classes", default, 0, MAX_CLASSES)


@section("region", refused="log", ignored=f"{_V1} thresh bias_match classfix absolute focal_loss")
def region(net: Network, s: Section) -> Node:
    """Boxes are decoded relative to the grid, as both forks do."""
    total, count = s.integer("num", 1, 1, MAX_CLASSES), classes(s, 20)
    coords, tree = s.integer("coords", 4, 4, 100), s.text("tree")
    groups, parents = read_tree(net, s, tree) if tree else ((), ())
    if tree and sum(groups) != count:
        raise s.error(f"the tree has {sum(groups)} classes, classes={count}", "tree")
    softmax, background = s.flag("softmax"), s.flag("background")
    head = RegionHead(anchors(s, total), count, coords, softmax, background, groups, parents)
    return enter(net, s, head, total * head.entries)


@section("detection", ignored=_V1)
def detection(net: Network, s: Section) -> Node:
    coords, count = s.integer("coords", 1, 1), s.integer("classes", 1, 1, MAX_CLASSES)
    side, boxes = s.integer("side", 7, 1, 1000), s.integer("num", 1, 1, 1000)
    if coords != 4:
        raise s.error(f"boxes have coords=4, got {coords}", "coords")
    head = GridHead(side, boxes, count, s.flag("sqrt"), s.flag("softmax"))
    c, h, w = net.sizes(net.x)
    x = net.x if h == w == 1 else net.reshape(net.x, c * h * w, 1, 1, part="vector")
    return enter(net, s, head, side * side * (count + 5 * boxes), x)


def enter(
    net: Network,
    s: Section,
    head: YoloHead | GaussianYoloHead | RegionHead | GridHead,
    expected: int,
    x: Node | None = None,
) -> Node:
    """The head as a layer, and as one of the network's outputs."""
    before = net.x if x is None else x
    if net.channels(before) != expected:
        raise s.error(f"the layer before must have {expected} channels, it has {net.channels(before)}")
    node = net.node(head, before)
    net.heads[f"{s.name}_{net.index}"] = node
    return node
