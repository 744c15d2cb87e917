"""PyTorch checkpoints that were made to harm: nothing in them is run, and none costs more than a moment."""

from __future__ import annotations

import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_files import Module, Raw, Stored, Tensor, global_, legacy_file, opcodes, pickled, tensor, zip_file

from graphsr.errors import ModelError
from graphsr.importers.checkpoint import Checkpoint, read_checkpoint

from support import costs_little

A = np.arange(6, dtype=np.float32).reshape(2, 3)
GOOD = {"a.weight": tensor("0", A), "b.weight": tensor("1", A)}
MARKER = "graphsr-marker-of-executed-code"


def call(module: str, name: str, *arguments: Any) -> bytes:
    return global_(module, name) + opcodes(arguments) + b"R"


ORDERED_DICT = global_("collections", "OrderedDict") + b")R"
SEQUENTIAL = global_("torch.nn.modules.container", "Sequential")
COMMAND = f"touch {MARKER}"
PYTHON = f"open({MARKER!r}, 'w')"

PAYLOADS: dict[str, bytes] = {
    "os.system": call("os", "system", COMMAND),
    "posix.system": call("posix", "system", COMMAND),
    "nt.system": call("nt", "system", COMMAND),
    "os.popen": call("os", "popen", COMMAND),
    "os.execvp": call("os", "execvp", "touch", ["touch", MARKER]),
    "subprocess.Popen": call("subprocess", "Popen", ["touch", MARKER]),
    "subprocess.check_output": call("subprocess", "check_output", ["touch", MARKER]),
    "builtins.eval": call("builtins", "eval", PYTHON),
    "builtins.exec": call("builtins", "exec", PYTHON),
    "__builtin__.eval": call("__builtin__", "eval", PYTHON),
    "__builtin__.execfile": call("__builtin__", "execfile", MARKER),
    "builtins.compile": call("builtins", "compile", PYTHON, "x", "exec"),
    "builtins.open": call("builtins", "open", MARKER, "w"),
    "io.open": call("io", "open", MARKER, "w"),
    "builtins.__import__": call("builtins", "__import__", "antigravity"),
    "importlib.import_module": call("importlib", "import_module", "antigravity"),
    "builtins.getattr": call("builtins", "getattr", Raw(global_("os", "path")), "os"),
    "builtins.globals": call("builtins", "globals"),
    "runpy._run_code": call("runpy", "_run_code", PYTHON, {}),
    "pty.spawn": call("pty", "spawn", "sh"),
    "shutil.rmtree": call("shutil", "rmtree", MARKER),
    "socket.create_connection": call("socket", "create_connection", ("127.0.0.1", 9)),
    "functools.partial": call("functools", "partial", Raw(global_("os", "system")), COMMAND),
    "operator.methodcaller": call("operator", "methodcaller", "system", COMMAND),
    "copyreg._reconstructor": call("copyreg", "_reconstructor", Raw(global_("os", "system")), None, None),
    "types.FunctionType": call("types", "FunctionType", None, {}),
    "ctypes.CDLL": call("ctypes", "CDLL", "libc.so.6"),
    "collections.namedtuple": call("collections", "namedtuple", "x", PYTHON),
    "collections._sys": global_("collections", "_sys"),
    "collections.OrderedDict.fromkeys": call("collections", "OrderedDict.fromkeys", "ab"),
    "torch.load": call("torch", "load", MARKER),
    "torch.storage._load_from_bytes": call("torch.storage", "_load_from_bytes", PYTHON),
    "torch.utils.collect_env.run": call("torch.utils.collect_env", "run", COMMAND),
    "torch.hub.load": call("torch.hub", "load", "a/b", "c"),
    "torch.jit.load": call("torch.jit", "load", MARKER),
    "torch._utils._import_dotted_name": call("torch._utils", "_import_dotted_name", "os.system"),
    "torch._utils._rebuild_wrapper_subclass": call("torch._utils", "_rebuild_wrapper_subclass", 1),
    "torch._utils._rebuild_device_tensor_from_numpy": call("torch._utils", "_rebuild_device_tensor_from_numpy", 1),
    "torch.nn.parallel.data_parallel.DataParallel": global_("torch.nn.parallel.data_parallel", "DataParallel")
    + b")\x81",
    "torch.nn.modules.module.torch.os.system": call("torch.nn.modules.module", "torch.os.system", COMMAND),
    "torch.nn.modules.x/../../os": call("torch.nn.modules.x/../../os", "system", COMMAND),
    "numpy.load": call("numpy", "load", MARKER),
    "numpy.testing._private.utils.runstring": call("numpy.testing._private.utils", "runstring", PYTHON, {}),
    "numpy.core.multiarray._reconstruct": call("numpy.core.multiarray", "_reconstruct", 0, (0,), "b"),
    "a module class with arguments": SEQUENTIAL + opcodes((COMMAND,)) + b"R",
    "a module instance that is called": SEQUENTIAL + b")\x81" + opcodes((COMMAND,)) + b"R",
    "a string that is called": opcodes("os.system") + opcodes((COMMAND,)) + b"R",
    "a dict that is called": ORDERED_DICT + opcodes((COMMAND,)) + b"R",
    "an element type that is called": global_("torch", "float32") + opcodes((COMMAND,)) + b"R",
    "OrderedDict of a string": call("collections", "OrderedDict", COMMAND),
    "set of a string": call("__builtin__", "set", COMMAND),
    "Counter of a string": call("collections", "Counter", COMMAND),
    "arguments that are no tuple": global_("collections", "OrderedDict") + b"]R",
    "state of a function": global_("collections", "OrderedDict") + opcodes({"__call__": COMMAND}) + b"b",
    "state of a list": b"]" + opcodes({"append": COMMAND}) + b"b",
    "state of a dict in slots": ORDERED_DICT + opcodes((None, {"__class__": COMMAND})) + b"b",
    "state of a module in slots": SEQUENTIAL + b")\x81" + opcodes((None, {"__class__": COMMAND})) + b"b",
    "items of a list": b"]" + opcodes(0) + opcodes(0) + b"s",
    "items of a module": SEQUENTIAL + b")\x81" + opcodes("__class__") + opcodes(0) + b"s",
    "an item appended to a dict": b"}" + opcodes(0) + b"a",
    "a tuple as a key": b"}" + opcodes((1, 2)) + opcodes(0) + b"s",
    "a persistent id that is a string": opcodes("os.system") + b"Q",
    "a persistent module of another class": opcodes(("module", Raw(global_("os", "system")), "f", PYTHON)) + b"Q",
    "a persistent storage of another type": opcodes(("storage", Raw(global_("os", "system")), "0", "cpu", 6)) + b"Q",
    "STACK_GLOBAL": opcodes("os") + opcodes("system") + b"\x93",
    "INST": b"(" + opcodes(COMMAND) + b"ios\nsystem\n",
    "OBJ": b"(" + SEQUENTIAL + opcodes(COMMAND) + b"o",
    "PERSID": b"Pos.system\n",
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "NEWOBJ_EX": SEQUENTIAL + b")}\x92",
    "BYTEARRAY8": b"\x96" + bytes(8),
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"N\x98",
    "DUP": b"N2",
    "POP": b"NN0",
    "an unknown opcode": b"\xff",
}

EVENTS: list[str] = []
LISTENING = False
FORBIDDEN = ("import", "exec", "compile", "pickle.", "marshal.", "os.", "subprocess.", "socket.", "ctypes.", "shutil.")


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    if LISTENING and (event.startswith(FORBIDDEN) or (event == "open" and "checkpoint" not in str(arguments[0]))):
        EVENTS.append(f"{event} {arguments}")


@pytest.fixture(scope="module")
def audit() -> list[str]:
    """What the interpreter reports of imports, executed code, processes and opened files, while `LISTENING`."""
    sys.addaudithook(listen)  # it cannot be removed, only be silent
    return EVENTS


@pytest.fixture
def refused(tmp_path: Path, audit: list[str]) -> Callable[[bytes], str]:
    """Read a file that must be refused: the message. Nothing may have been run meanwhile."""

    def read(data: bytes) -> str:
        global LISTENING
        path = tmp_path / "checkpoint"
        path.write_bytes(data)
        audit.clear()
        LISTENING = True
        try:
            with pytest.raises(ModelError) as error:
                read_checkpoint(path)
        finally:
            LISTENING = False
        assert audit == []
        assert str(error.value).startswith(f"{path}: ")
        return str(error.value)

    return read


@pytest.mark.parametrize("write", [zip_file, legacy_file])
@pytest.mark.parametrize("name", PAYLOADS)
def test_malicious_pickles_run_nothing(
    name: str,
    write: Callable[..., bytes],
    refused: Callable[[bytes], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    program = pickled({**GOOD, "evil": Raw(PAYLOADS[name])}, legacy=write is legacy_file)
    message = refused(write(GOOD, program=program))
    assert not (tmp_path / MARKER).exists()
    if "." in name or name.isupper():
        assert name in message  # the refusal says what was refused


def test_malicious_pickles_before_the_contents(refused: Callable[[bytes], str]) -> None:
    """The legacy form has four more pickles."""
    good = legacy_file(GOOD)
    evil = b"\x80\x02" + PAYLOADS["os.system"] + b"."
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001)]
    assert good.startswith(b"".join(parts))
    assert "os.system" in refused(parts[0] + evil + good)
    assert "os.system" in refused(parts[0] + parts[1] + evil + good)
    assert "os.system" in refused(legacy_file(GOOD, keys=Raw(PAYLOADS["os.system"])))


# --- denial of service ----------------------------------------------------------------------------------------------


def costs(path: Path) -> tuple[int, Checkpoint | None]:
    """Bytes of Python memory at the peak, and the result or None; it is read in less than a second."""

    def read() -> Checkpoint | None:
        try:
            return read_checkpoint(path)
        except ModelError:
            return None

    with costs_little():
        read()
    tracemalloc.start()
    result = read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, result


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def doubled(levels: int) -> bytes:
    """A tuple of two tuples of two tuples …: 2**levels values to whoever walks through it."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(levels))


def chain_of_dicts(levels: int) -> bytes:
    """The same with dicts: each holds the one before it twice."""
    code = opcodes(tensor("0", A))
    for level in range(levels):
        code = b"}(" + opcodes("a") + code + put(level) + opcodes("b") + get(level) + b"u"
    return code


COLLIDING = b"".join(opcodes(k * ((1 << 61) - 1)) + b"N" for k in range(1, 60_000))
LONG_NAME = "n" * 500

EXPENSIVE: dict[str, bytes] = {
    "memo index 2**27": b"N" + put(1 << 27) + b".",
    "memo index 2**32 - 1": b"N" + put((1 << 32) - 1) + b".",
    "frame of 2**40 bytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.",
    "doubled tuples": doubled(100) + b".",
    "doubled tuples as a key": b"}" + doubled(100) + b"Ns.",
    "doubled tuples as a size": opcodes(Tensor(Stored("0", A), 0, Raw(doubled(100)), (1,))) + b".",
    "nested lists": b"]" * 124_000 + b"a" * 123_999 + b".",
    "nested tuples": b")" + b"\x85" * 249_000 + b".",
    "nested dicts": b"}N" * 80_000 + b"N" + b"s" * 80_000 + b".",
    "an integer of 20 MB": b"\x8b" + struct.pack("<I", 20 << 20) + b"\x7f" * 1000,
    "a negative length": b"\x8b" + struct.pack("<i", -1),
    "a string of 4 GB": b"X" + struct.pack("<I", (1 << 32) - 1) + b"x",
    "a string of 20 MB": b"X" + struct.pack("<I", 20 << 20) + b"x" * (20 << 20) + b".",
    "a name without an end": b"c" + b"x" * (4 << 20),
    "many marks": b"(" * 300_000,
    "many dicts": b"}" * 300_000,
    "many memo entries": b"N" + b"".join(put(k) for k in range(300_000)),
    "many appended values": b"](" + b"N" * 300_000 + b"e.",
    "keys of one hash": b"}(" + COLLIDING + b"u.",
    "one list in many dicts": b"](" + opcodes(["a", 1]) * 10_000 + b"eq\x00"
    + (global_("collections", "OrderedDict") + b"h\x00\x85R") * 10_000 + b".",
    "doubled tuples, few levels": doubled(25) + b".",
    "a chain of dicts, few levels": chain_of_dicts(25) + b".",
    "a chain of dicts": chain_of_dicts(60) + b".",
    "a cycle of dicts": b"}q\x00(" + opcodes("a") + b"h\x00" + opcodes("b") + opcodes(tensor("0", A)) + b"u.",
    "a cycle of lists": b"]q\x00h\x00a.",
    "a cycle of wrappers": b"}q\x00("
    + opcodes("state_dict") + b"h\x00" + opcodes("x") + opcodes(tensor("0", A)) + b"u.",
    "a cycle of modules": SEQUENTIAL + b")\x81q\x00" + opcodes({"_modules": {"a": Raw(b"h\x00")}}) + b"b.",
    "many buffers left out, by many names": SEQUENTIAL + b")\x81" + opcodes({
        "_buffers": dict.fromkeys(map(str, range(30_000))),
        "_non_persistent_buffers_set": Raw(global_("__builtin__", "set") + b"](" + opcodes("x") + b"q\x05"
                                           + b"h\x05" * 100_000 + b"e\x85R"),
    }) + b"b.",
    "one list in many sets": b"](" + opcodes("x") * 10_000 + b"eq\x00"
    + (global_("__builtin__", "set") + b"h\x00\x85R") * 10_000 + b".",
    "many long class names": (global_("torch.nn.modules." + "x" * 230, "y" * 250)) * 16_000 + b".",
    "many prefixes": opcodes({"module." * 60 + "first": Raw(opcodes(tensor("0", A)) + b"q\x07")} | {
        "module." * 60 + f"x{k}": Raw(b"h\x07") for k in range(12_000)}) + b".",
    "a long prefix of many names": opcodes({LONG_NAME: Raw(b"}q\x01(" + b"".join(
        opcodes(f"{k}") + opcodes(tensor("0", A)) for k in range(3000)) + b"u"), "b": Raw(b"h\x01")}) + b".",
    "long metadata": opcodes({**GOOD, **{f"k{i}": "x" * 60_000 for i in range(130)}}) + b".",
}  # fmt: skip


@pytest.mark.parametrize("name", EXPENSIVE)
def test_small_files_with_large_claims_cost_little(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    program = b"\x80\x02" + EXPENSIVE[name]
    declared = [key for key in ("0", "1") if opcodes((key, "cpu"))[1:-1] in program]
    path.write_bytes(zip_file(program=program, storages={key: A.tobytes() for key in declared}))
    peak, _ = costs(path)
    assert peak < 100 << 20


# --- storages and tensors that lie ----------------------------------------------------------------------------------


def described(offset: Any = 0, size: Any = (2, 3), stride: Any = (3, 1), **storage: Any) -> dict[str, Any]:
    return {"a.x": Tensor(Stored("0", A.ravel(), **storage), offset, size, stride), "b.x": tensor("1", A)}


LAYOUTS: dict[str, dict[str, Any]] = {
    "past the end": described(offset=1),
    "far past the end": described(offset=1 << 62),
    "negative offset": described(offset=-1),
    "negative size": described(size=(-2, 3)),
    "negative stride": described(offset=5, stride=(-3, -1)),
    "stride past the end": described(stride=(4, 1)),
    "product of sizes beyond 64 bits": described(size=(1 << 32, 1 << 32, 1 << 32), stride=(0, 0, 0)),
    "expanded to 4 GB": described(size=(1 << 30,), stride=(0,)),
    "expanded to 100 MB": described(size=(25, 1 << 20), stride=(0, 0)),
    "overlapping to 100 MB": described(size=(1 << 23, 3, 2), stride=(0, 1, 1)),
    "empty and huge": described(size=(0, 1 << 39, 1 << 39), stride=(0, 0, 0)),
    "empty and past the end": described(offset=7, size=(0,), stride=(1,)),
    "more sizes than strides": described(stride=(3,)),
    "33 dimensions": described(size=(1,) * 33, stride=(1,) * 33),
    "a float as a size": described(size=(2.0, 3)),
    "a bool as a stride": described(stride=(3, True)),
    "a string as an offset": described(offset="0"),
    "a list as a size": described(size=[2, 3]),
    "declared larger than stored": described(count=7),
    "declared smaller than stored": described(count=5, size=(1,), stride=(1,)),
    "declared as 4 GB": described(count=1 << 30),
    "declared beyond 64 bits": described(count=1 << 80),
    "declared negative": described(count=-6),
    "declared as wider elements": described(kind="float64"),
    "two declarations of one storage": {**described(), "c.x": Tensor(Stored("0", A.ravel(), "int32"), 0, (6,), (1,))},
    "negated": {
        "a.x": Raw(
            global_("torch._utils", "_rebuild_tensor_v2")
            + opcodes((Stored("0", A.ravel()), 0, (6,), (1,), False, {}, {"neg": True}))
            + b"R"
        )
    },
}


@pytest.mark.parametrize("write", [zip_file, legacy_file])
@pytest.mark.parametrize("name", LAYOUTS)
def test_tensors_stay_inside_their_storage(name: str, write: Callable[..., bytes], tmp_path: Path) -> None:
    value = LAYOUTS[name]
    path = tmp_path / "file"
    path.write_bytes(write(value, storages=None) if name != "negated" else zip_file(GOOD, program=pickled(value)))
    peak, result = costs(path)
    assert result is None
    assert peak < 10 << 20


def test_many_names_of_one_large_storage_are_bounded_by_max_bytes(tmp_path: Path) -> None:
    storage = Stored("0", np.zeros(1 << 18, np.float32))
    path = tmp_path / "file"
    path.write_bytes(zip_file({f"n.{k}": Tensor(storage, 0, (1 << 18,), (1,)) for k in range(100)}))
    assert len(read_checkpoint(path).tensors) == 100
    with pytest.raises(ModelError, match="max_bytes"):
        read_checkpoint(path, max_bytes=20 << 20)


def test_two_element_types_in_one_storage(tmp_path: Path) -> None:
    storage = Stored("0", A.view(np.uint8).ravel(), "untyped")
    views = {kind: Tensor(storage, 0, (24 // size,), (1,), 3, kind) for kind, size in (("int32", 4), ("int16", 2))}
    path = tmp_path / "file"
    path.write_bytes(zip_file(views))
    with pytest.raises(ModelError, match="read as int32 and as int16"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zip_file(GOOD, storages={"0": A.tobytes()}), r"archive/data/1'.*missing"),
        (zip_file(GOOD, storages={"0": A.tobytes(), "1": A.tobytes(), "2": b""}), r"archive/data/2'.*does not name it"),
        (zip_file(GOOD, storages={"0": A.tobytes(), "1": A.tobytes()[:-1]}), r"archive/data/1'.*23 bytes.*declares 24"),
        (zip_file(GOOD, extra=[("archive/code.py", b"x" * 99, zipfile.ZIP_DEFLATED)]), r"archive/code.py'.*compressed"),
        (zip_file(GOOD, extra=[("archive/bomb", bytes(9 << 20), zipfile.ZIP_BZIP2)]), r"archive/bomb'.*compressed"),
        (zip_file(GOOD, extra=[("other/data.pkl", b"N.", zipfile.ZIP_STORED)]), r"data.pkl in one folder"),
        (zip_file(GOOD, extra=[("archive/constants.pkl", b"N.", zipfile.ZIP_STORED)]), r"TorchScript"),
        (zip_file(GOOD, byteorder="middle"), r"byteorder.*b'middle'"),
        (zip_file(GOOD, program=pickled(GOOD) + b"N."), r"after the end of the pickle"),
        (zip_file(GOOD) + b"x", r"after the end of the archive"),
        (zip_file(GOOD)[:-30], r"cut off"),
        (zip_file({}), r"no tensors.*0 entries"),
        (zip_file({"a": 1, "b": "x"}), r"no tensors.*2 entries: 'a', 'b'"),
        (zip_file(3), r"no tensors.*a int"),
        (zip_file({"a.b": tensor("0", A), "a": {"b": tensor("1", A)}}), r"'a\.b'.*two tensors"),
        (legacy_file(GOOD, keys=["0"]), r"storage keys"),
        (legacy_file(GOOD, keys=["0", "1", "2"]), r"storage keys"),
        (legacy_file(GOOD, keys=["0", "0"]), r"storage keys"),
        (legacy_file(GOOD, keys={"0": 1, "1": 1}), r"storage keys.*not a list"),
        (legacy_file(GOOD, storages=(7).to_bytes(8, "little") + A.tobytes()), r"storage '0'.*7 elements.*declares 6"),
        (legacy_file(GOOD)[:-1], r"end.*damaged|shrank|bytes .* are wanted"),
        (legacy_file(GOOD) + b"x", r"end.*damaged"),
        (legacy_file(GOOD).replace(b"little_endian", b"Little_endian"), r"little_endian"),
    ],
)
def test_containers_that_lie_are_refused_with_the_place(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_entries(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(zip_file(GOOD, extra=[("archive/data/0", bytes(24), zipfile.ZIP_STORED)]))
    with pytest.raises(ModelError, match=r"archive/data/0'.*two entries"):
        read_checkpoint(path)


def test_overlapping_entries(tmp_path: Path) -> None:
    """Two entries of the directory that share one member: the basis of the densest zip bombs."""
    data = bytearray(zip_file(GOOD))
    directory = data.index(b"PK\x01\x02")
    first, second = (data.index(name, directory) - 46 for name in (b"archive/data/0", b"archive/data/1"))
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"overlaps"):
        read_checkpoint(path)


def test_a_module_with_odd_parts_is_read_or_refused(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {},
        {"_parameters": 3},
        {"_modules": []},
        {"_buffers": {1: tensor("0", A)}},
        {"_non_persistent_buffers_set": 3},
    ]
    for state in odd:
        path = tmp_path / "file"
        path.write_bytes(zip_file({"a": Module("torch.nn.modules.conv.Conv2d", state), "b.x": tensor("1", A)}))
        read_checkpoint(path)
