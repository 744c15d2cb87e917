"""Assembly of x86-64 and aarch64 as the tests of the llvm backend read it: the innermost loops of a function."""

from __future__ import annotations

import re
from dataclasses import dataclass

JUMP = re.compile(r"\s+(j\w+|b|b\.\w+|cbn?z|tbn?z)\s")
UNCONDITIONAL = ("jmp", "b")
SPILL = re.compile(r"[xyz]mm\d+.*\(%rsp|\(%rsp.*[xyz]mm\d|\b[qd]\d+.*\[sp\b")
"""A vector register that is stored to the stack or loaded from it."""


@dataclass(frozen=True)
class Block:
    """Instructions that run one after the other: up to a label or a jump."""

    label: str
    lines: tuple[str, ...]

    @property
    def target(self) -> str:
        """The label that its last instruction may jump to, or nothing."""
        found = re.search(r"\.LBB\w+", self.lines[-1]) if self.lines and JUMP.match(self.lines[-1]) else None
        return found[0] if found else ""

    @property
    def falls_through(self) -> bool:
        """Whether the next block may follow it."""
        last = self.lines[-1].split()[0] if self.lines else ""
        return last not in (*UNCONDITIONAL, "ret", "retq")


def innermost_loops(assembly: str) -> list[str]:
    """The instructions of every loop without another one inside, those of all its branches."""
    found = []
    for blocks in _functions(assembly):
        loops = _loops(blocks)
        for head, body in loops.items():
            if not any(other in body for other in loops if other != head):
                found.append("\n".join(line for block in sorted(body) for line in blocks[block].lines))
    return found


def _functions(assembly: str) -> list[list[Block]]:
    """The blocks of every function."""
    functions = []
    for text in re.split(r"^(?=[A-Za-z_][\w.$]*:)", assembly, flags=re.MULTILINE)[1:]:
        blocks: list[Block] = []
        for part in re.split(r"^(?=\.LBB)", text, flags=re.MULTILINE):
            label, lines = part.split(":", 1)[0], []
            for line in part.splitlines()[1:]:
                if re.match(r"\s+[a-z]", line):
                    lines.append(line)
                if JUMP.match(line):
                    blocks.append(Block(label, tuple(lines)))
                    label, lines = "", []
            blocks.append(Block(label, tuple(lines)))
        functions.append(blocks)
    return functions


def _loops(blocks: list[Block]) -> dict[int, set[int]]:
    """The blocks of each loop, by the block where it begins: those from which a jump back comes, without passing it."""
    places = {block.label: i for i, block in enumerate(blocks) if block.label}
    following: list[list[int]] = []
    for i, block in enumerate(blocks):
        following.append([places[block.target]] if block.target else [])
        if block.falls_through and i + 1 < len(blocks):
            following[-1].append(i + 1)
    before: list[list[int]] = [[] for _ in blocks]
    for i, others in enumerate(following):
        for other in others:
            before[other].append(i)
    loops: dict[int, set[int]] = {}
    for last, head in _jumps_back(following):
        body, left = loops.setdefault(head, {head}), [last]
        while left:
            i = left.pop()
            if i not in body:
                body.add(i)
                left += before[i]
    return loops


def _jumps_back(following: list[list[int]]) -> list[tuple[int, int]]:
    """The edges that lead to a block on the way to where they begin, walking in depth from the first block."""
    edges, way, seen = [], [0], {0}
    left = [iter(following[0])]
    while left:
        block = next(left[-1], None)
        if block is None:
            left.pop()
            way.pop()
        elif block in way:
            edges.append((way[-1], block))
        elif block not in seen:
            seen.add(block)
            way.append(block)
            left.append(iter(following[block]))
    return edges
