"""PyTorch checkpoints: what is read is what was written, by a writer without PyTorch and by PyTorch itself."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch_files import Module, Raw, Stored, Tensor, global_, legacy_file, opcodes, pickled, tensor, zip_file

from graphsr.errors import ModelError
from graphsr.importers.checkpoint import Checkpoint, read_checkpoint

from support import data_path

WRITERS: dict[str, Callable[..., bytes]] = {"PyTorch zip": zip_file, "PyTorch legacy": legacy_file}
KINDS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.5, -2.0], np.float32)


@pytest.fixture(params=WRITERS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def load(form: str, tmp_path: Path) -> Callable[..., Checkpoint]:
    """Write a value in one of the two forms and read it."""

    def write_and_read(value: Any, **options: Any) -> Checkpoint:
        path = tmp_path / "file"
        path.write_bytes(WRITERS[form](value, **options))
        checkpoint = read_checkpoint(path)
        assert checkpoint.format == form
        return checkpoint

    return write_and_read


def arrays() -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Arrays of any element type that both PyTorch and we have, every bit pattern in them."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)
    return st.sampled_from(KINDS).flatmap(lambda kind: hnp.arrays(kind, shapes))


@settings(deadline=None)
@given(state=st.dictionaries(st.text(min_size=1, max_size=20), arrays(), min_size=1, max_size=4), data=st.data())
def test_reads_what_was_written(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Any], data: Any) -> None:
    form = data.draw(st.sampled_from(sorted(WRITERS)))
    path = tmp_path_factory.mktemp("state") / "file"
    # More than one name, so that no single name is taken for a wrapper or prefix.
    named = {f"layer.{name}": array for name, array in state.items()} | {"last.bias": B}
    path.write_bytes(WRITERS[form]({name: tensor(str(i), array) for i, (name, array) in enumerate(named.items())}))
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == list(named)
    for name, array in named.items():
        read = checkpoint.tensors[name]
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()
        assert not read.flags.writeable


def test_hash_and_path_are_those_of_the_file(load: Callable[..., Checkpoint]) -> None:
    checkpoint = load({"a.weight": tensor("0", A), "b.bias": tensor("1", B)})
    assert checkpoint.sha256 == hashlib.sha256(Path(checkpoint.path).read_bytes()).hexdigest()
    tensors: Any = checkpoint.tensors
    with pytest.raises(TypeError):
        tensors["a"] = A


def test_bfloat16_is_widened_exactly(load: Callable[..., Checkpoint]) -> None:
    bits = np.array([0x3F80, 0xC000, 0x7F80, 0x0001, 0x3DCD], np.uint16)
    storage = Stored("0", bits, "bfloat16")
    (read,) = load({"w.x": Tensor(storage, 0, (5,), (1,))}).tensors.values()
    assert read.dtype == np.float32
    assert read.view(np.uint32).tolist() == [int(bit) << 16 for bit in bits]


def test_views_of_one_storage(load: Callable[..., Checkpoint]) -> None:
    whole = np.arange(24, dtype=np.float32)
    storage = Stored("0", whole)
    views = {
        "a.plain": (Tensor(storage, 0, (4, 6), (6, 1)), whole.reshape(4, 6)),
        "a.transposed": (Tensor(storage, 0, (6, 4), (1, 6)), whole.reshape(4, 6).T),
        "a.slice": (Tensor(storage, 7, (2, 3), (6, 1)), whole.reshape(4, 6)[1:3, 1:4]),
        "a.step": (Tensor(storage, 1, (5,), (4,)), whole[1::4][:5]),
        "a.channels_last": (Tensor(storage, 0, (2, 3, 2, 2), (12, 1, 6, 3)),
                            whole.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2)),
        "a.expanded": (Tensor(storage, 5, (2, 3), (0, 0)), np.full((2, 3), 5.0)),
        "a.scalar": (Tensor(storage, 23, (), ()), np.array(23.0)),
        "a.empty": (Tensor(storage, 24, (0, 7), (7, 1)), np.empty((0, 7))),
        "a.any_stride_of_one": (Tensor(storage, 0, (1, 6), (1 << 62, 1)), whole[:6].reshape(1, 6)),
    }  # fmt: skip
    read = load({name: view for name, (view, _) in views.items()}).tensors
    for name, (_, expected) in views.items():
        np.testing.assert_array_equal(read[name], expected, err_msg=name)
        assert read[name].flags.c_contiguous


def test_big_endian(load: Callable[..., Checkpoint], form: str) -> None:
    options: dict[str, Any] = {"byteorder": "big"} if form == "PyTorch zip" else {"little_endian": False}
    state = {"a.x": tensor("0", A.astype(">f4")), "b.x": tensor("1", np.arange(3).astype(">i8"))}
    read = load(state, **options).tensors
    np.testing.assert_array_equal(read["a.x"], A)
    np.testing.assert_array_equal(read["b.x"], np.arange(3))
    assert read["a.x"].dtype.isnative


@pytest.mark.parametrize("version", [1, 2])
def test_rebuild_functions_of_every_age(load: Callable[..., Checkpoint], version: int) -> None:
    state = {"a.x": Tensor(Stored("0", A.ravel()), 0, (2, 3), (3, 1), version)}
    np.testing.assert_array_equal(load(state).tensors["a.x"], A)


def test_untyped_storage_with_the_type_at_the_tensor(load: Callable[..., Checkpoint]) -> None:
    array = np.arange(5, dtype=np.uint16)
    storage = Stored("0", array.view(np.uint8), "untyped")
    read = load({"a.x": Tensor(storage, 0, (5,), (1,), 3, "uint16")}).tensors["a.x"]
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.uint16


def test_parameters_and_old_dicts(load: Callable[..., Checkpoint]) -> None:
    """Parameters, OrderedDict with its items as an argument (Python 2) and strings as bytes (Python 2)."""
    view = opcodes(tensor("0", A), legacy=True)
    parameter = global_("torch._utils", "_rebuild_parameter") + b"(" + view + b"\x88}tR"
    program = b"\x80\x02" + global_("collections", "OrderedDict") + b"](](U\x03a.x" + parameter + b"ee\x85R."
    assert program  # the same program describes both forms, as a persistent id may end in None
    read = load({"": tensor("0", A)}, program=program).tensors
    np.testing.assert_array_equal(read["a.x"], A)


STATE = {"conv.weight": tensor("0", A), "conv.bias": tensor("1", B)}


@pytest.mark.parametrize(
    ("value", "metadata"),
    [
        (STATE, {}),
        (
            {"state_dict": STATE, "epoch": 30, "name": "EDSR"},
            {"epoch": "30", "name": "EDSR", "state dict": "state_dict"},
        ),
        ({"model_state_dict": STATE, "optimizer_state_dict": {"state": {}}, "epoch": 3}, {"epoch": "3"}),
        ({"params": {"x": tensor("2", A), "y": tensor("3", A)}, "params_ema": STATE}, {"state dict": "params_ema"}),
        ({"model": {"state_dict": STATE}, "psnr": 32.5}, {"psnr": "32.5", "state dict": "model.state_dict"}),
        ({"anything": STATE}, {"state dict": "anything"}),
        ({"net": STATE, "meta": {"iter": 5}}, {"state dict": "net"}),
        ({f"module.{name}": value for name, value in STATE.items()}, {"prefix removed": "module."}),
        ({f"netG.module.{name}": value for name, value in STATE.items()}, {"prefix removed": "netG.module."}),
        (
            {f"generator.{name}": value for name, value in STATE.items()}
            | {"step_counter": tensor("2", np.array([5])), "discriminator.a.weight": tensor("3", A)}
            | {"perceptual_loss.vgg.weight": tensor("4", A)},
            {"tensors left out": "step_counter (1), discriminator (1), perceptual_loss (1)"},
        ),
    ],
)
def test_wrappers_and_prefixes(load: Callable[..., Checkpoint], value: Any, metadata: dict[str, str]) -> None:
    checkpoint = load(value)
    assert list(checkpoint.tensors) == ["conv.weight", "conv.bias"]
    np.testing.assert_array_equal(checkpoint.tensors["conv.weight"], A)
    assert metadata.items() <= checkpoint.metadata.items()


@pytest.mark.parametrize(
    "names",
    [
        ["module.a.weight", "b.weight"],
        ["generator.a.weight", "encoder.weight"],
        ["module.", "module.a"],
        ["a.generator.weight", "step_counter"],
    ],
)
def test_prefixes_that_not_all_names_have_stay(load: Callable[..., Checkpoint], names: list[str]) -> None:
    assert list(load({name: tensor(str(i), A) for i, name in enumerate(names)}).tensors) == names


def test_other_nesting_gives_dotted_names(load: Callable[..., Checkpoint]) -> None:
    value = {"nets": [{"w": tensor("0", A)}, (tensor("1", B), 3)], "other": {7: {"w": tensor("2", A)}}}
    assert list(load(value).tensors) == ["nets.0.w", "nets.1.0", "other.7.w"]


def test_tied_weights_have_both_names(load: Callable[..., Checkpoint]) -> None:
    tied = tensor("0", A)
    read = load({"first.weight": tied, "second.weight": tied}).tensors
    np.testing.assert_array_equal(read["first.weight"], read["second.weight"])


def whole_module() -> Module:
    conv = {
        "_parameters": {"weight": tensor("0", A), "bias": None},
        "_buffers": {},
        "_modules": {},
        "kernel_size": (3, 3),
    }
    norm = {
        "_parameters": {"weight": tensor("1", B)},
        "_buffers": {"running_mean": tensor("2", B), "scratch": tensor("3", B)},
        "_non_persistent_buffers_set": Raw(global_("__builtin__", "set") + opcodes((["scratch"],)) + b"R"),
        "training": True,
    }
    children = {
        "0": Module("torch.nn.modules.conv.Conv2d", conv),
        "1": Module("torch.nn.modules.batchnorm.BatchNorm2d", norm),
    }
    return Module("torch.nn.modules.container.Sequential", {"_parameters": {}, "_buffers": {}, "_modules": children})


def test_whole_modules_are_read_as_their_state(load: Callable[..., Checkpoint], form: str) -> None:
    names = ["0.weight", "1.weight", "1.running_mean"]
    assert list(load(whole_module()).tensors) == names
    assert list(load({"model": whole_module(), "epoch": 2}).tensors) == names


def test_a_module_of_a_project_is_refused_by_its_name(load: Callable[..., Checkpoint]) -> None:
    with pytest.raises(ModelError, match=r"model\.edsr\.EDSR: .*state_dict"):
        load(Module("model.edsr.EDSR", {"_parameters": {"weight": tensor("0", A)}}))


def test_checksums_left_out_by_pytorch_are_accepted(tmp_path: Path) -> None:
    damaged = bytearray(zip_file(STATE))
    at = damaged.index(A.tobytes())
    damaged[at] ^= 1
    path = tmp_path / "file"
    path.write_bytes(damaged)
    with pytest.raises(ModelError, match=r"data/0.*checksum"):
        read_checkpoint(path)
    with zipfile.ZipFile(io.BytesIO(damaged)) as archive:
        for info in archive.infolist():
            damaged = damaged.replace(info.CRC.to_bytes(4, "little"), bytes(4))
    path.write_bytes(damaged)
    assert read_checkpoint(path).tensors["conv.weight"].shape == (2, 3)


def test_legacy_views_of_a_storage(tmp_path: Path) -> None:
    """Storages that share memory were written as a part (view) of the first one."""
    whole = np.arange(10, dtype=np.float32)
    view = opcodes(("storage", Raw(global_("torch", "FloatStorage")), "5", "cpu", 10, ("7", 4, 6))) + b"Q"
    rebuilt = (
        global_("torch._utils", "_rebuild_tensor") + b"(" + view + opcodes(1) + opcodes((5,)) + opcodes((1,)) + b"tR"
    )
    path = tmp_path / "file"
    path.write_bytes(
        legacy_file({"a.x": tensor("5", whole)}, program=pickled({"a.x": Raw(rebuilt), "b.x": Raw(rebuilt)}))
    )
    np.testing.assert_array_equal(read_checkpoint(path).tensors["a.x"], whole[5:10])


# --- written by PyTorch ---------------------------------------------------------------------------------------------


def torch_options(form: str) -> dict[str, Any]:
    return {"_use_new_zipfile_serialization": form == "PyTorch zip"}


def assert_equal_to_torch(path: Path, state: dict[str, Any]) -> Checkpoint:
    torch = pytest.importorskip("torch")
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.tensors) == list(state)
    for name, expected in state.items():
        plain = expected.detach()
        if plain.dtype == torch.bfloat16:
            plain = plain.float()
        assert checkpoint.tensors[name].dtype == plain.numpy().dtype, name
        np.testing.assert_array_equal(checkpoint.tensors[name], plain.numpy(), err_msg=name)
    return checkpoint


def test_every_element_type_and_view_of_pytorch(form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    base = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)
    names = (
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "uint16",
        "uint32",
    )
    state = {f"x.{name}": base.to(getattr(torch, name)) for name in names}
    state |= {
        "x.permuted": base.permute(3, 0, 2, 1),
        "x.part": base[1, :, 1:3, ::2],
        "x.expanded": torch.tensor([2.0]).expand(4, 5),
        "x.channels_last": base.clone().to(memory_format=torch.channels_last),
        "x.scalar": torch.tensor(3.5),
        "x.empty": torch.empty(0, 4),
        "x.parameter": torch.nn.Parameter(base[0]),
    }
    path = tmp_path / "file.pth"
    torch.save(state, path, **torch_options(form))
    assert_equal_to_torch(path, state)


def test_training_checkpoint_of_pytorch(form: str, tmp_path: Path) -> None:
    """A network with batch normalisation and weight norm, its optimiser and scheduler, as ychfan/wdsr saves them."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    norm = torch.nn.utils.parametrizations.weight_norm
    net = nn.Sequential(
        norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8), nn.PReLU(), nn.Conv2d(8, 12, 3), nn.PixelShuffle(2)
    )
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2], 0.2)
    net(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    saved = {
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "lr_scheduler_state_dict": scheduler.state_dict(),
        "epoch": 30,
    }
    path = tmp_path / "epoch_30.pth"
    torch.save(saved, path, **torch_options(form))
    checkpoint = assert_equal_to_torch(path, net.state_dict())
    assert checkpoint.metadata == {"epoch": "30", "state dict": "model_state_dict"}


@pytest.mark.filterwarnings("ignore")  # PyTorch's own warnings on saving whole modules and unwritable arrays
def test_whole_module_of_pytorch(form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    inner = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    net = nn.Sequential(OrderedDict(head=inner, act=nn.LeakyReLU(), up=nn.Upsample(scale_factor=2), same=inner))
    net.act.register_buffer("scratch", torch.zeros(3), persistent=False)
    path = tmp_path / "file.pt"
    torch.save(net, path, **torch_options(form))
    assert_equal_to_torch(path, net.state_dict())


def test_unsupported_element_types_are_named(form: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "file.pt"
    torch.save({"a.x": torch.zeros(3), "a.small": torch.zeros(3).to(torch.float8_e4m3fn)}, path, **torch_options(form))
    with pytest.raises(ModelError, match=r"'a\.small'.*float8_e4m3fn' is not supported"):
        read_checkpoint(path)
    torch.save({"a.x": torch.zeros(3, dtype=torch.complex64)}, path, **torch_options(form))
    with pytest.raises(ModelError, match="ComplexFloatStorage"):
        read_checkpoint(path)


def test_without_checksums_by_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {"a.x": torch.arange(5.0), "b.x": torch.arange(3.0)}
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "file.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_equal_to_torch(tmp_path / "file.pt", state)


@pytest.mark.parametrize("scale", [2, 4])
def test_published_srresnet(scale: int) -> None:
    path = data_path(f"weights/srresnet/leftthomas_srresnet_x{scale}.pth")
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "PyTorch legacy"
    assert len(checkpoint.tensors) == {2: 76, 4: 79}[scale]
    torch = pytest.importorskip("torch")
    assert_equal_to_torch(path, torch.load(path, map_location="cpu", weights_only=True))


def test_nothing_is_left_open(load: Callable[..., Checkpoint]) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    load(STATE)
    assert not before or len(os.listdir("/proc/self/fd")) == before
