"""The engines: how each loads a network and runs it in float32 on a given number of threads.

An engine reads files of one folder: `model` (graphsr's own format), `folded` (the same after graphsr's folding passes,
which is what all peers get), `model.onnx` (the folded network) and what its own `convert` has made of them. `load`
gives a function that takes the input array [N, C, H, W] and returns the output; NCHW in, NCHW out is what is timed,
conversions to an engine's own layout included. Outputs may share memory from run to run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

import numpy as np

from graphsr.backend import backends
from graphsr.op import Array

from peers.networks import load_model

Run: TypeAlias = Callable[[Array], Array]


@dataclass(frozen=True)
class Engine:
    """One engine. Its packages are imported inside its functions, in the process that runs it."""

    name: str
    package: str
    """Name of the installed distribution."""
    module: str
    """What is imported before the clock of a load starts."""
    load: Callable[[Path, int, str], Run]
    """(folder, threads, variant) -> the network, ready to run."""
    convert: Callable[[Path, tuple[int, ...]], None] | None = None
    """(folder, shape of the input): makes the engine's own files."""
    variants: tuple[str, ...] = ("",)
    """Settings of which one or the other is faster, from network to network; the engine's default first."""
    backend: str = ""
    """The name of graphsr's backend, where the engine is one."""
    extra: bool = False
    """Whether it runs only where it is asked for by name."""

    def prepare(self, folder: Path, threads: int, x: Array) -> str:
        """Make the engine's files, once for each network. Returns the faster variant by a trial."""
        if self.convert:
            self.convert(folder, x.shape)
        if len(self.variants) == 1:
            return self.variants[0]
        seconds = {variant: _seconds(self.load(folder, threads, variant), x) for variant in self.variants}
        return min(self.variants, key=lambda variant: seconds[variant])

    @property
    def needs_preparation(self) -> bool:
        return self.convert is not None or len(self.variants) > 1

    def version(self) -> str | None:
        """The installed version, None where there is none."""
        try:
            found = version(self.package)
        except PackageNotFoundError:
            return None
        return found if not self.backend or self.backend in backends() else None


def _seconds(run: Run, x: Array) -> float:
    """Of the second run: the first one allocates and packs."""
    run(x)
    start = time.perf_counter()
    run(x)
    return time.perf_counter() - start


def _graphsr(backend: str, **options: str) -> Callable[[Path, int, str], Run]:
    def load(folder: Path, threads: int, variant: str) -> Run:
        run = load_model(folder / "model").compile(backend=backend, threads=threads, **options)
        return lambda x: run({"input": x})["output"]

    return load


def _llvm(name: str, **options: str) -> Engine:
    """The llvm backend, by default or with an option that costs or saves time."""
    load = _graphsr("llvm", **options)
    return Engine(name, "graphsr", "graphsr.backends.llvm.backend", load, backend="llvm", extra=bool(options))


def _onnxruntime(folder: Path, threads: int, variant: str) -> Run:
    """Input and output stay bound to arrays, so that no run allocates its output anew."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    output = np.empty(session.get_outputs()[0].shape, np.float32)
    bound = session.io_binding()
    bound.bind_output("output", "cpu", 0, np.float32, output.shape, output.ctypes.data)

    def run(x: Array) -> Array:
        bound.bind_cpu_input("input", x)
        session.run_with_iobinding(bound)
        return output

    return run


def _openvino(folder: Path, threads: int, variant: str) -> Run:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # on some processors the default is bfloat16
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    request = openvino.Core().compile_model(folder / "model.onnx", "CPU", settings).create_infer_request()
    return lambda x: request.infer([x], share_inputs=True, share_outputs=True)[0]


def _ncnn_files(folder: Path, shape: tuple[int, ...]) -> None:
    from peers.ncnn_file import write_ncnn

    write_ncnn(load_model(folder / "folded").graph.bind({"input": shape}), folder / "ncnn")


def _ncnn(folder: Path, threads: int, variant: str) -> Run:
    """Image by image: ncnn has no batches. Where it does not choose Winograd, a convolution is a matrix product of
    patches ("sgemm", its default: gigabytes for a 9x9 kernel) or "direct"."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_sgemm_convolution = variant == "sgemm"
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    for loaded in (net.load_param(str(folder / "ncnn.param")), net.load_model(str(folder / "ncnn.bin"))):
        if loaded != 0:
            raise RuntimeError("ncnn refuses the files")

    def image(x: Array) -> ncnn.Mat:
        extractor = net.create_extractor()
        extractor.input("input", ncnn.Mat(x).clone())  # the clone has ncnn's alignment of channels
        failed, y = extractor.extract("output")
        if failed:
            raise RuntimeError(f"ncnn stops with code {failed}")
        return y

    def run(x: Array) -> Array:
        first = np.asarray(image(x[0]))
        output = np.empty((len(x), *first.shape), np.float32)
        output[0] = first
        for i in range(1, len(x)):
            output[i] = np.asarray(image(x[i]))
        return output

    return run


def _mnn_file(folder: Path, shape: tuple[int, ...]) -> None:
    """The converter's library, without its command line, which would send statistics."""
    import _tools

    source, target = (str(folder / f"model.{suffix}") for suffix in ("onnx", "mnn"))
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", source, "--MNNModel", target, "--bizCode", "bench"])
    if not Path(target).exists():
        raise RuntimeError("MNN's converter wrote nothing")


def _mnn(folder: Path, threads: int, variant: str) -> Run:
    import MNN

    net = MNN.Interpreter(str(folder / "model.mnn"))
    session = net.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
    source, result = net.getSessionInput(session), net.getSessionOutput(session)
    output = np.empty(result.getShape(), np.float32)
    target = MNN.Tensor(output.shape, MNN.Halide_Type_Float, output, MNN.Tensor_DimensionType_Caffe)

    def run(x: Array) -> Array:
        given = MNN.Tensor(x.shape, MNN.Halide_Type_Float, x, MNN.Tensor_DimensionType_Caffe)
        source.copyFrom(given)
        net.runSession(session)
        result.copyToHostTensor(target)
        return np.asarray(target.getNumpyData())

    return run


def _torch(folder: Path, threads: int, variant: str) -> Run:
    """Eager PyTorch, with images and weights in the layout that `variant` names."""
    import torch

    from peers.torch_module import GraphModule

    torch.set_num_threads(threads)
    layout = torch.channels_last if variant == "channels_last" else torch.contiguous_format
    return GraphModule(load_model(folder / "folded").graph).runner(layout)


ENGINES = {
    engine.name: engine
    for engine in (
        _llvm("llvm"),
        _llvm("llvm-memory-low", memory="low"),
        _llvm("llvm-memory-high", memory="high"),
        _llvm("llvm-accuracy-high", accuracy="high"),
        Engine("numpy", "graphsr", "graphsr.backends.fast_numpy", _graphsr("numpy"), backend="numpy"),
        Engine("onnxruntime", "onnxruntime", "onnxruntime", _onnxruntime),
        Engine("openvino", "openvino", "openvino", _openvino),
        Engine("ncnn", "ncnn", "ncnn", _ncnn, _ncnn_files, ("sgemm", "direct")),
        Engine("mnn", "MNN", "MNN", _mnn, _mnn_file),
        Engine("torch", "torch", "torch", _torch, variants=("contiguous", "channels_last")),
    )
}
OWN = tuple(engine.name for engine in ENGINES.values() if engine.backend)
"""graphsr's backends; all others are peers."""
