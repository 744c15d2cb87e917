"""From what a PyTorch file holds to a flat mapping of parameter names: wrappers, whole modules and prefixes.

Projects save more than a state dict: {"state_dict": …, "epoch": 30}, {"params_ema": …}, a whole module, names with
the prefix of DataParallel. The conventions followed are those of spandrel, and of mmagic, whose checkpoints
keep the network beside its discriminator and losses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .byte_source import ByteSource
from .torch_objects import Module, Tensor

WRAPPERS = ("model_state_dict", "state_dict", "params_ema", "params-ema", "params", "model", "net")
PREFIXES = ("module.", "netG.", "generator.")
COMPANIONS = ("discriminator", "generator_ema", "data_preprocessor", "step_counter")
"""What stands beside `generator.` in a checkpoint of mmagic; also everything whose name ends in `_loss`."""

MAX_WRAPPERS = 8
MAX_DEPTH = 32
MAX_VISITED = 250_000
MAX_NAME = 512
MAX_TENSORS = 1 << 16
MAX_METADATA = 1000
MAX_TEXT = 1 << 16


def state_dict(root: object, source: ByteSource) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(name -> tensor in file order, metadata) of what the pickle of a checkpoint gave.

    Metadata holds the numbers and strings beside the tensors and, where it applies, which entry was taken
    ("state dict"), which prefix was cut ("prefix removed") and what was not the network ("tensors left out").
    ModelError where there are no tensors, or too many values, or a cycle.
    """
    metadata: dict[str, str] = {}
    inner, wrappers = _unwrap(root, metadata)
    walk = _Walk(source)
    walk.visit({"tensor": inner} if isinstance(inner, Tensor) else inner, "", 0)
    if not walk.found:
        raise source.error("contents", f"there are no tensors in it, but {_describe(inner)}")
    tensors, notes = _strip_prefixes(walk.found)
    if wrappers:
        notes["state dict"] = ".".join(wrappers)
    return tensors, {**notes, **metadata}


def _unwrap(root: object, metadata: dict[str, str]) -> tuple[object, list[str]]:
    """What the wrappers hold, and their keys from the outside in; their scalars go to `metadata`."""
    wrappers: list[str] = []
    empty: set[int] = set()
    while isinstance(root, dict) and len(wrappers) < MAX_WRAPPERS:
        _collect_scalars(root, metadata)
        candidates = [key for key in WRAPPERS if key in root] or (list(root) if len(root) == 1 else [])
        key = next((key for key in candidates if _is_state(root[key], empty)), None)
        if key is None:
            break
        wrappers.append(str(key))
        root = root[key]
    return root, wrappers


def _is_state(value: object, empty: set[int]) -> bool:
    """Whether `value` is a dict or module that holds tensors, directly or in dicts of dicts.

    `empty` collects the dicts that do not, by identity, so that none is searched in vain twice.
    """
    seen = set(empty)
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Module):
            return True
        if isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            if any(isinstance(child, Tensor) for child in value.values()):
                return True
            waiting.extend(value.values())
    empty |= seen
    return False


def _collect_scalars(level: dict[object, object], metadata: dict[str, str]) -> None:
    for key, value in level.items():
        if isinstance(key, str) and isinstance(value, str | int | float) and len(metadata) < MAX_METADATA:
            text = str(value)
            if len(key) <= MAX_NAME and len(text) <= MAX_TEXT:
                metadata.setdefault(key, text)


@dataclass
class _Walk:
    """Collects the tensors below a value under their dotted names.

    A value that is reached on two paths is visited twice, since tied weights have several names; so the
    visits are counted.
    """

    source: ByteSource
    found: dict[str, Tensor] = field(default_factory=dict)
    visited: int = 0

    def visit(self, value: object, name: str, depth: int) -> None:
        if isinstance(value, Tensor):
            self._enter(name, value)
            return
        for part, child in _children(value):
            self.visited += 1
            if self.visited > MAX_VISITED or depth > MAX_DEPTH:
                raise self.source.error(f"entry {name!r}", "nested too deeply or in a cycle, or too many values")
            if isinstance(child, Tensor | Module | dict | list | tuple):
                path = f"{name}.{part}" if name else str(part)
                if len(path) > MAX_NAME:
                    raise self.source.error(f"entry {path[:80]!r}…", f"a name of more than {MAX_NAME} characters")
                self.visit(child, path, depth + 1)

    def _enter(self, name: str, tensor: Tensor) -> None:
        if name in self.found:
            raise self.source.error(f"tensor {name!r}", "two tensors have this name")
        if len(self.found) == MAX_TENSORS:
            raise self.source.error(f"tensor {name!r}", f"more than {MAX_TENSORS} tensors")
        self.found[name] = tensor


def _children(value: object) -> Iterator[tuple[object, object]]:
    """The named parts of a dict, list, tuple or module; those of a module as `Module.state_dict` orders them."""
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, Module):
        transient = value.state.get("_non_persistent_buffers_set")
        left_out = transient if isinstance(transient, frozenset) else frozenset()
        for group in ("_parameters", "_buffers", "_modules"):
            members = value.state.get(group)
            if isinstance(members, dict):
                yield from ((key, child) for key, child in members.items() if key not in left_out)


def _strip_prefixes(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same tensors without the prefixes that all names share, and the notes on what was done."""
    notes: dict[str, str] = {}
    removed = ""
    for _ in range(MAX_WRAPPERS):
        network, others = _network_of_mmagic(tensors)
        if others:
            tensors = network
            notes["tensors left out"] = ", ".join(f"{name} ({count})" for name, count in others.items())
        prefix = next((prefix for prefix in PREFIXES if _all_begin_with(prefix, tensors)), None)
        if prefix is None:
            break
        removed += prefix
        notes["prefix removed"] = removed
        tensors = {name[len(prefix) :]: tensor for name, tensor in tensors.items()}
    return tensors, notes


def _all_begin_with(prefix: str, names: Iterable[str]) -> bool:
    """Whether all names begin with the prefix and something follows."""
    return all(name.startswith(prefix) and name != prefix for name in names)


def _network_of_mmagic(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Counter[str]]:
    """The tensors under `generator.`, and how many lie under each of its companions; no companions elsewhere."""
    network = {name: tensor for name, tensor in tensors.items() if name.startswith("generator.")}
    others = Counter(name.partition(".")[0] for name in tensors if name not in network)
    if network and all(name in COMPANIONS or name.endswith("_loss") for name in others):
        return network, others
    return tensors, Counter()


def _describe(value: object) -> str:
    if isinstance(value, dict):
        keys = ", ".join(repr(key)[:40] for key in list(value)[:5])
        return f"a dict of {len(value)} entries: {keys}"
    return f"a {type(value).__name__}"
