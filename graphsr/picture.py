"""A picture of a graph as one self-contained SVG: for notebooks (`_repr_html_`) and `graphsr info --svg`.

Nodes lie in rows by their depth (the longest path from an input), constants are left out (they are named in their
reader's tooltip), and edges run from row to row. Edges that skip rows are drawn beside the nodes that they pass.
"""

from __future__ import annotations

from html import escape

from graphsr.ir import Const, Graph, Input, Node
from graphsr.textform import node_names, print_op

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 232, 40, 28, 26, 16

FAMILY_COLOURS = {
    "input": "#d9ead3",
    "conv": "#cfe2f3",
    "fused": "#b6d7f5",
    "dense": "#cfe2f3",
    "depth": "#fce5cd",
    "space": "#fce5cd",
    "resize": "#fce5cd",
    "shortcut": "#ead1dc",
    "add": "#ead1dc",
    "batch": "#fff2cc",
}
"""Fill by the beginning of an op's name; the others are light grey."""


def graph_svg(graph: Graph) -> str:
    """The SVG text of a graph. Raises nothing; a graph of n nodes gives O(n) text."""
    shown = [node for node in graph.nodes() if not isinstance(node.op, Const)]
    rows = _rows(shown)
    place = _places(rows)
    widest = max((len(row) for row in rows), default=1)
    width = 2 * MARGIN + widest * (WIDTH + GAP_X) + GAP_X
    height = 2 * MARGIN + (len(rows) + 1) * (HEIGHT + GAP_Y)
    names = node_names(graph)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#666"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    parts += [_edge(place[child], place[node]) for node in shown for child in node.inputs if child in place]
    parts += [_box(node, names, place[node]) for node in shown]
    parts += _output_labels(graph, place, height)
    return "\n".join([*parts, "</svg>"])


def _rows(nodes: list[Node]) -> list[list[Node]]:
    depth: dict[Node, int] = {}
    for node in nodes:
        depth[node] = 1 + max((depth[child] for child in node.inputs if child in depth), default=-1)
    rows: list[list[Node]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for node in nodes:
        rows[depth[node]].append(node)
    return rows


def _places(rows: list[list[Node]]) -> dict[Node, tuple[int, int]]:
    """Top left corner of every node: the first branch stays in the left column, as the network's main path."""
    return {
        node: (MARGIN + GAP_X + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
        for row, nodes in enumerate(rows)
        for column, node in enumerate(nodes)
    }


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH // 2, start[1] + HEIGHT, end[0] + WIDTH // 2, end[1]
    if y2 - y1 <= GAP_Y:
        path = f"M{x1} {y1} L{x2} {y2}"
    else:  # around the left side of what lies between
        x = min(start[0], end[0]) - 6 - min(GAP_X - 10, (y2 - y1) // 60)
        y1, y2 = start[1] + HEIGHT // 2, end[1] + HEIGHT // 2
        path = f"M{start[0]} {y1} C{x} {y1} {x} {y1} {x} {y1 + 12} L{x} {y2 - 12} C{x} {y2} {x} {y2} {end[0]} {y2}"
    return f'<path d="{path}" fill="none" stroke="#888" marker-end="url(#tip)"/>'


def _box(node: Node, names: dict[Node, str], place: tuple[int, int]) -> str:
    x, y = place
    colour = next((c for start, c in FAMILY_COLOURS.items() if node.op.name.startswith(start)), "#eeeeee")
    weights = "".join(f"\n{names[child]} : {child.type}" for child in node.inputs if isinstance(child.op, Const))
    attributes = "" if isinstance(node.op, Input) else print_op(node.op)
    tooltip = escape(f"{names[node]}\n{attributes}{weights}\n{node.origin}".strip())
    return (
        f'<g><title>{tooltip}</title><rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
        f'fill="{colour}" stroke="#999"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + 16}" text-anchor="middle" font-weight="bold">'
        f"{escape(_short(f'{node.op.name}  {names[node]}', 36))}</text>"
        f'<text x="{x + WIDTH // 2}" y="{y + 31}" text-anchor="middle" fill="#555">'
        f"{escape(_short(str(node.type), 40))}</text></g>"
    )


def _output_labels(graph: Graph, place: dict[Node, tuple[int, int]], height: int) -> list[str]:
    labels: dict[Node, list[str]] = {}
    for name, node in graph.outputs.items():
        labels.setdefault(node, []).append(name)
    return [
        f'<text x="{place[node][0] + WIDTH // 2}" y="{place[node][1] + HEIGHT + 16}" text-anchor="middle" '
        f'font-weight="bold">→ {escape(_short(", ".join(names), 36))}</text>'
        for node, names in labels.items()
        if node in place
    ]


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
