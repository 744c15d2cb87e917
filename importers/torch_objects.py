"""What a PyTorch checkpoint may contain, as inert records: the rules by which its pickle is read.

The allow-list is exact. A state dict needs OrderedDict, the tensor rebuilders, the storage types and the element
types; a whole saved module adds `torch.nn.modules.*` and `set` (the names of its non-persistent buffers); the
state of `MultiStepLR`, which the checkpoints of ychfan/wdsr carry, adds Counter. No name is ever imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np

from .pickle_vm import MAX_OPCODES, simple_key
from .stored_tensors import MAX_RANK, STORED_AS, Layout

REFUSED_KINDS = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "complex64", "complex128")
"""Element types that may be named but not used: the error then names the tensor."""

_KINDS = frozenset((*STORED_AS, *REFUSED_KINDS))

_KIND_OF_STORAGE: dict[tuple[str, str], str | None] = {
    ("torch", "DoubleStorage"): "float64",
    ("torch", "FloatStorage"): "float32",
    ("torch", "HalfStorage"): "float16",
    ("torch", "BFloat16Storage"): "bfloat16",
    ("torch", "LongStorage"): "int64",
    ("torch", "IntStorage"): "int32",
    ("torch", "ShortStorage"): "int16",
    ("torch", "CharStorage"): "int8",
    ("torch", "ByteStorage"): "uint8",
    ("torch", "BoolStorage"): "bool",
    ("torch.storage", "UntypedStorage"): None,  # bytes; the tensor names the element type
}

_FUNCTIONS = {
    ("collections", "OrderedDict"): "OrderedDict",
    ("collections", "Counter"): "Counter",
    ("__builtin__", "set"): "set",  # protocol 2 calls builtins by their Python 2 module
    ("builtins", "set"): "set",
    ("torch._utils", "_rebuild_tensor"): "rebuild_tensor",
    ("torch._utils", "_rebuild_tensor_v2"): "rebuild_tensor_v2",
    ("torch._utils", "_rebuild_tensor_v3"): "rebuild_tensor_v3",
    ("torch._utils", "_rebuild_parameter"): "rebuild_parameter",
}


@dataclass(frozen=True)
class ElementKind:
    """`torch.float32` and the like."""

    name: str


@dataclass(frozen=True)
class StorageType:
    """`torch.FloatStorage` and the like; `kind` is None for untyped bytes."""

    kind: str | None


@dataclass(frozen=True)
class Function:
    """One of the functions that a checkpoint may call; see `TorchRules.call`."""

    name: str


@dataclass(frozen=True)
class ModuleClass:
    """A class of `torch.nn.modules`."""

    name: str


@dataclass(eq=False)
class Module:
    """An instance of such a class: only its attributes."""

    class_name: str
    state: dict[object, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """A run of elements that the container holds under `key`."""

    key: str
    kind: str | None
    """Type of the elements; None for untyped bytes."""
    count: int
    first: int = 0
    """The element of the run at which this storage begins: 0 but for the views of the legacy format."""

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * (1 if self.kind is None else np.dtype(STORED_AS[self.kind]).itemsize)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that is not read yet; whether the layout fits the storage is not checked yet."""

    storage: Storage
    kind: str
    layout: Layout


class TorchRules:
    """`pickle_vm.Rules` for one file. `storages` collects what the pickle declares, to be compared with the container.

    The methods raise ValueError with the reason, as the protocol asks.
    """

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self._copied = 0

    def find(self, module: str, name: str) -> object:
        known = (module, name)
        if known in _FUNCTIONS:
            return Function(_FUNCTIONS[known])
        if known in _KIND_OF_STORAGE:
            return StorageType(_KIND_OF_STORAGE[known])
        if module == "torch" and name in _KINDS:
            return ElementKind(name)
        if module.startswith("torch.nn.modules.") and all(part.isidentifier() for part in (*module.split("."), name)):
            return ModuleClass(f"{module}.{name}")
        raise ValueError(
            "this class or function is not allowed in a checkpoint; only tensors and torch.nn modules are read. "
            "Where the file is trusted, load it with PyTorch and save model.state_dict() alone"
        )

    def call(self, function: object, arguments: tuple[object, ...]) -> object:
        match function, arguments:
            case ModuleClass(name), ():
                return Module(name)
            case Function("OrderedDict"), ():
                return {}
            case Function("OrderedDict"), (list(pairs),):  # Python 2 wrote the items as an argument
                return self._dict_of(pairs)
            case Function("Counter"), (dict(counts),):
                return counts
            case Function("set"), (list(members),):
                self._charge(members)
                return frozenset(simple_key(member) for member in members)
            case Function("rebuild_tensor"), (storage, offset, size, stride):
                return _tensor(storage, None, offset, size, stride)
            case Function("rebuild_tensor_v2"), (storage, offset, size, stride, _, _, *metadata):
                _expect_plain(metadata)
                return _tensor(storage, None, offset, size, stride)
            case Function("rebuild_tensor_v3"), (storage, offset, size, stride, _, _, kind, *metadata):
                _expect_plain(metadata)
                return _tensor(storage, kind, offset, size, stride)
            case Function("rebuild_parameter"), (Tensor() as tensor, _, _):
                return tensor
            case ((Function(name) | ModuleClass(name)), _):
                raise ValueError(f"{name} with arguments that PyTorch does not write")
        raise ValueError(f"a {type(function).__name__} is called as if it were a function")

    def build(self, target: object, state: object) -> None:
        if isinstance(target, Module) and isinstance(state, dict):
            target.state = state
        elif not (isinstance(target, dict) and isinstance(state, dict)):  # an OrderedDict's _metadata: not needed
            raise ValueError(f"a {type(target).__name__} cannot take a {type(state).__name__} as its state")

    def persistent(self, identity: object) -> object:
        match identity:
            case ("module", ModuleClass() as module, _, _):  # legacy: class, file and text of its source
                return module
            case ("storage", StorageType(kind), str(key), _, int(count)):
                return self._declare(key, kind, count)
            case ("storage", StorageType(kind), str(key), _, int(count), None):
                return self._declare(key, kind, count)
            case ("storage", StorageType(kind), str(key), _, int(count), (_, int(first), int(viewed))):
                return _part(self._declare(key, kind, count), first, viewed)
        raise ValueError("not the description of a storage that PyTorch writes")

    def _declare(self, key: str, kind: str | None, count: int) -> Storage:
        if count < 0:
            raise ValueError(f"storage {key!r} has {count} elements")
        storage = Storage(key, kind, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} is declared twice, with different types or sizes")
        return storage

    def _charge(self, items: list[object]) -> None:
        """One list may be an argument of many calls; what they copy is bounded in all."""
        self._copied += len(items)
        if self._copied > MAX_OPCODES:
            raise ValueError("more entries than a checkpoint has")

    def _dict_of(self, pairs: list[object]) -> dict[object, object]:
        self._charge(pairs)
        result = {}
        for pair in pairs:
            match pair:
                case [key, value]:
                    result[simple_key(key)] = value
                case _:
                    raise ValueError("OrderedDict with items that are not pairs")
        return result


def _part(whole: Storage, first: int, count: int) -> Storage:
    """`count` elements of `whole`, from element `first`."""
    if first < 0 or count < 0 or first + count > whole.count:
        raise ValueError(f"a view of elements {first} to {first + count} does not fit into storage {whole.key!r}")
    return Storage(whole.key, whole.kind, count, first)


def _tensor(storage: object, kind: object, offset: object, size: object, stride: object) -> Tensor:
    if not isinstance(storage, Storage) or isinstance(offset, bool) or not isinstance(offset, int):
        raise ValueError("a tensor without a storage or an offset")
    if not (_are_integers(size) and _are_integers(stride)):
        raise ValueError(f"a tensor whose sizes or strides are not at most {MAX_RANK} integers")
    name = kind.name if isinstance(kind, ElementKind) else storage.kind
    if name is None:
        raise ValueError("a tensor without an element type")
    return Tensor(storage, name, Layout(offset, size, stride))


def _are_integers(value: object) -> TypeGuard[tuple[int, ...]]:
    return type(value) is tuple and len(value) <= MAX_RANK and all(type(n) is int for n in value)


def _expect_plain(metadata: list[object]) -> None:
    """The optional last argument holds the bits "negated" and "conjugated" of lazy views: {} for plain tensors."""
    if metadata not in ([], [{}], [None]):
        raise ValueError("a tensor with pending negation or other metadata; save a clone() of it")
