"""Trains the embedded WDSR networks (graphsr/weights/wdsr-x2.safetensors and wdsr-x4.safetensors).

The photographs come from packages, so nothing is downloaded by hand (credits: CREDITS below, and NOTICE):

    apt install lomiri-wallpapers-16.04 lomiri-wallpapers-20.04    # into /usr/share/backgrounds
    pip install -e '.[oracle,metrics,image]' safetensors           # scikit-image brings its sample photographs

The two networks, in this order (the second starts from head and body of the first). The shipped files come from
shorter runs of the same commands, with `--minutes 28` and `--minutes 22.5` on two busy cores: 5102 and 3151 steps, as
their metadata say. Longer runs score higher.

    photos="/usr/share/backgrounds $(python -c 'import skimage.data as d; print(d.__path__[0])')"
    python bench/train_embedded.py --scale 2 --photos $photos --steps 15000 --output wdsr-x2.safetensors
    python bench/train_embedded.py --scale 4 --photos $photos --steps 12000 --output wdsr-x4.safetensors \
        --init wdsr-x2.safetensors

Network: WDSR-A (Yu et al., "Wide activation for efficient and accurate image super-resolution", 2018), with the
parameter names and the input convention of the authors' PyTorch code, weight norm folded, stored as float16.
Degradation: antialiased bicubic, clamped and rounded to 8 bit. Loss: L1 over RGB. Set5, if `--set5` is given,
is only measured: it never steers the training.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from graphsr.atomic import atomic_path
from graphsr.metrics import paper, psnr

Bytes = npt.NDArray[np.uint8]

FEATURES, EXPANSION, BLOCKS = 32, 96, 4
"""Channels between the blocks, channels inside a block, number of blocks: 0.23 M parameters; widths fill 16 lanes."""

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K, in units of white; part of the network's input convention."""

PEAK_RATE = 1e-3
WARM_UP = 200  # steps
SAVE_EVERY = 500  # steps


@dataclass(frozen=True)
class Credit:
    """Where a photograph comes from. `octaves`: the reductions (1/n) of it that are trained on.

    JPEG files are at least halved: that removes the compression artefacts, which the network would learn to draw,
    and the softness of the demosaicked original.
    """

    title: str
    author: str
    licence: str
    octaves: tuple[int, ...] = (2, 3, 4)


CREDITS = {
    # Debian packages lomiri-wallpapers-16.04 and -20.04. Left out: the drawn and composed pictures of these packages,
    # and seeding_by_Clements_Engelhardt.jpg, whose dandelion is docs/example.png.
    "Bridge_by_Sander_Klootwijk.jpg": Credit("Bridge", "Sander Klootwijk", "CC-BY-SA-4.0"),
    "Dragonfly_by_Bolly.jpg": Credit("Dragonfly", "Bolly", "CC-BY-SA-4.0"),
    "Kleiber_by_Lukas_Baubkus.jpg": Credit("Kleiber", "Lukas Baubkus", "CC-BY-SA-3.0"),
    "Picture_0B_by_freespace.jpg": Credit("Picture 0B", 'Trevor "Freespace"', "CC-BY-4.0"),
    "Picture_1A_by_freespace.jpg": Credit("Picture 1A", 'Trevor "Freespace"', "CC-BY-4.0", (2,)),
    "Wine_by_Jakkub_Mede.jpg": Credit("Wine", "Jakub Mede", "CC-BY-4.0"),
    "aitzgorri_by_Aitzol_Berasategi.jpg": Credit("Aitzgorri", "Aitzol Berasategi", "CC-BY-4.0"),
    "free_by_Peter_Nerlich.jpg": Credit("Free", "Peter Nerlich", "CC-BY-SA-4.0"),
    "friends_by_Aitzol_Berasategi.jpg": Credit("Friends", "Aitzol Berasategi", "CC-BY-4.0"),
    "greentock_by_Peter_Nerlich.jpg": Credit("Greentock", "Peter Nerlich", "CC-BY-SA-4.0"),
    "life_by_Aitzol_Berasategi.jpg": Credit("Life", "Aitzol Berasategi", "CC-BY-4.0"),
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": Credit("Picos de Europa", "Aitzol Berasategi", "CC-BY-4.0"),
    "sunset_by_Aitzol_Berasategi.jpg": Credit("Sunset", "Aitzol Berasategi", "CC-BY-4.0"),
    # Sample photographs inside scikit-image's wheel; licences as stated by the docstrings of skimage.data.
    "astronaut.png": Credit("Eileen Collins", "NASA", "public domain", (1,)),
    "camera.png": Credit("Camera", "Lav Varshney", "CC0-1.0", (1,)),
    "chelsea.png": Credit("Chelsea the cat", "Stefan van der Walt", "CC0-1.0", (1,)),
    "coffee.png": Credit("Coffee cup", "Rachel Michetti", "CC0-1.0", (1,)),
}
"""Every photograph that may be used, by file name; others are skipped, for the weight file has to name its sources."""


class Block(nn.Module):
    """x + conv3x3(relu(conv3x3(x))): a WDSR-A block, wide before the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(FEATURES, EXPANSION, 3), nn.ReLU(inplace=True), conv(EXPANSION, FEATURES, 3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class Wdsr(nn.Module):
    """(N, 3, H, W) RGB in 0..255 -> (N, 3, scale H, scale W) in the same units, unclamped."""

    mean: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = nn.Sequential(conv(3, FEATURES, 3))
        self.body = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.tail = nn.Sequential(conv(FEATURES, 3 * scale**2, 3))
        self.skip = nn.Sequential(conv(3, 3 * scale**2, 5))
        self.register_buffer("mean", 255 * torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / 127.5
        y = self.tail(self.body(self.head(x))) + self.skip(x)
        return nn.functional.pixel_shuffle(y, self.scale) * 127.5 + self.mean


def conv(inputs: int, outputs: int, size: int) -> nn.Module:
    """A weight-normalised convolution that keeps the image size."""
    module: nn.Module = weight_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2))
    return module


def convolutions(net: Wdsr) -> Iterator[tuple[str, nn.Conv2d]]:
    return ((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))


def folded(net: Wdsr) -> dict[str, Tensor]:
    """The parameters with weight norm folded (w = g v / ‖v‖), named as in a network without it."""
    tensors = {}
    for name, module in convolutions(net):
        tensors[f"{name}.weight"] = module.weight.detach().contiguous().clone()
        if module.bias is not None:
            tensors[f"{name}.bias"] = module.bias.detach().clone()
    return tensors


def initialise(net: Wdsr, tensors: dict[str, Tensor]) -> None:
    """Takes over every convolution whose shape fits: all for the same scale, else all but tail and skip."""
    with torch.no_grad():
        for name, module in convolutions(net):
            weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
            if weight.shape == module.weight.shape and module.bias is not None:
                module.weight = weight.float()  # weight norm splits it into g and v
                module.bias.copy_(bias)


@dataclass(frozen=True)
class Pair:
    """A photograph (3, scale H, scale W) and its low-resolution version (3, H, W)."""

    high: Bytes
    low: Bytes


def degrade(high: Tensor, scale: int) -> Tensor:
    """(N, C, scale H, scale W) -> (N, C, H, W) in 0..255: antialiased bicubic, rounded to 8 bit."""
    low = nn.functional.interpolate(high, scale_factor=1 / scale, mode="bicubic", antialias=True)
    return low.clamp(0, 255).round()


def load_pairs(folders: Sequence[Path], scale: int) -> dict[str, list[Pair]]:
    """File name -> pairs, one per octave, of each credited photograph that the folders hold."""
    pairs = {}
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        if credit := CREDITS.get(path.name):
            with Image.open(path) as image:
                full = image.convert("RGB")
            pairs[path.name] = [make_pair(full, octave, scale) for octave in credit.octaves]
            print(f"{path.name}: {full.width}x{full.height}, reduced by {credit.octaves}", flush=True)
    return pairs


def make_pair(image: Image.Image, octave: int, scale: int) -> Pair:
    width, height = (side // (octave * scale) * scale for side in image.size)
    resized = image if octave == 1 else image.resize((width, height), Image.Resampling.LANCZOS)
    high = np.array(resized).transpose(2, 0, 1)[:, :height, :width]
    low = degrade(torch.from_numpy(high[None].astype(np.float32)), scale)[0]
    return Pair(np.ascontiguousarray(high), low.numpy().astype(np.uint8))


class Sampler:
    """Draws random crops, the more often the more detail they show.

    Cells of half a patch tile every low-resolution image. A cell is drawn with a probability that grows as the
    square root of its mean gradient (sky and blur teach nothing), and the crop starts anywhere inside it.
    """

    def __init__(self, pairs: Sequence[Pair], patch: int, scale: int, seed: int) -> None:
        self.pairs, self.patch, self.scale = pairs, patch, scale
        self.rng = np.random.default_rng(seed)
        self.cells: list[tuple[int, int, int]] = []
        detail = []
        for index, pair in enumerate(pairs):
            for y in range(0, pair.low.shape[1] - patch + 1, patch // 2):
                for x in range(0, pair.low.shape[2] - patch + 1, patch // 2):
                    self.cells.append((index, y, x))
                    detail.append(_mean_gradient(pair.low[1, y : y + patch, x : x + patch]))
        probability = np.sqrt(np.array(detail)) * (np.array(detail) > 1)
        self.cumulative = np.cumsum(probability / probability.sum())

    def crop(self) -> tuple[Bytes, Bytes]:
        """(low, high) of one crop under a random symmetry of the square."""
        cell = min(int(np.searchsorted(self.cumulative, self.rng.random())), len(self.cells) - 1)
        index, y, x = self.cells[cell]
        pair, patch, r = self.pairs[index], self.patch, self.scale
        y = min(y + int(self.rng.integers(patch // 2)), pair.low.shape[1] - patch)
        x = min(x + int(self.rng.integers(patch // 2)), pair.low.shape[2] - patch)
        turns, mirror = int(self.rng.integers(4)), int(self.rng.choice((-1, 1)))
        low = np.rot90(pair.low[:, y : y + patch, x : x + patch], turns, (1, 2))
        high = np.rot90(pair.high[:, r * y : r * (y + patch), r * x : r * (x + patch)], turns, (1, 2))
        return low[:, :, ::mirror], high[:, :, ::mirror]

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """(count, 3, patch, patch) and (count, 3, scale patch, scale patch), float32 in 0..255."""
        low, high = zip(*(self.crop() for _ in range(count)), strict=True)
        return torch.from_numpy(np.stack(low)).float(), torch.from_numpy(np.stack(high)).float()


def _mean_gradient(plane: Bytes) -> float:
    values = plane.astype(np.float32)
    return float(np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean())


def learning_rate(step: int, progress: float) -> float:
    """Linear warm-up, then a cosine down to 1 % of the peak; `progress` is in 0..1."""
    cosine = 0.5 * (1 + np.cos(np.pi * min(progress, 1)))
    return float(PEAK_RATE * min(1, (step + 1) / WARM_UP) * (0.01 + 0.99 * cosine))


def train(net: Wdsr, sampler: Sampler, args: argparse.Namespace, save: Saver) -> None:
    """Adam on L1 for `--steps` steps.

    `--minutes` shortens the schedule on a slow machine: the learning rate then follows the clock, so that the
    network is annealed whenever time is up. Only without it is a run reproducible.
    """
    optimiser = torch.optim.Adam(net.parameters(), lr=PEAK_RATE)
    start, total, step, progress = time.monotonic(), 0.0, 0, 0.0
    while progress < 1 and not save.stop_requested:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, progress)
        low, high = sampler.batch(args.batch)
        loss = nn.functional.l1_loss(net(low.contiguous(memory_format=torch.channels_last)), high)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        step, total = step + 1, total + loss.item()
        minutes = (time.monotonic() - start) / 60
        progress = max(step / args.steps, minutes / args.minutes)
        if step % SAVE_EVERY == 0 or progress >= 1 or save.stop_requested:
            window = step % SAVE_EVERY or SAVE_EVERY
            print(f"step {step}, {minutes:.1f} min, L1 {total / window:.3f}, {save(net, step)}", flush=True)
            total = 0.0


class Saver:
    """Writes the weight file every so often, and once more when SIGTERM or Ctrl-C ends the run early."""

    def __init__(self, output: Path, photographs: Sequence[str], init: Path | None, set5: Path | None) -> None:
        self.output, self.photographs, self.init, self.set5 = output, photographs, init, set5
        self.stop_requested = False
        signal.signal(signal.SIGTERM, self._request_stop)
        signal.signal(signal.SIGINT, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True

    def __call__(self, net: Wdsr, step: int) -> str:
        """Saves as float16; returns the Set5 scores of exactly what was saved, and what the rounding cost."""
        tensors = {name: tensor.half() for name, tensor in folded(net).items()}
        metadata = self._metadata(net.scale, step)
        cost = ""
        if self.set5 is not None:
            rounded = Wdsr(net.scale)
            initialise(rounded, tensors)
            scores, exact = set5_scores(rounded, self.set5), set5_scores(net, self.set5)
            metadata["set5_psnr"] = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
            cost = f" (float16 costs {exact['mean'] - scores['mean']:.4f} dB)"
        with atomic_path(self.output) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata)
        return metadata["set5_psnr"] + cost

    def _metadata(self, scale: int, step: int) -> dict[str, str]:
        credits = (CREDITS[name] for name in self.photographs)
        start = f"started from {self.init.name}, " if self.init else ""
        return {
            "architecture": "wdsr-a",
            "scale": str(scale),
            "input_range": "255",  # from here to shuffle: what the importer would otherwise have to assume
            "network_range": "2",
            "mean": json.dumps(RGB_MEAN),
            "res_scale": "1",
            "shuffle": "crd",
            "training": f"{start}{step} steps of Adam on L1, antialiased bicubic x{scale} of {len(self.photographs)} "
            f"photographs, torch {torch.__version__}, {datetime.date.today()}",
            "set5_psnr": "not measured",
            "credits": "; ".join(f"{credit.title} by {credit.author}, {credit.licence}" for credit in credits),
            "licence": "Weights: MIT, as graphsr. Trained on the photographs under credits; no image data is included.",
        }


def set5_scores(net: Wdsr, folder: Path) -> dict[str, float]:
    """PSNR of luma in dB per image, and "mean"; `folder` holds set5/*.bmp and set5_lr_x{scale}/*.png."""
    scores = {}
    for path in sorted((folder / "set5").glob("*.bmp")):
        low = torch.from_numpy(read_rgb(folder / f"set5_lr_x{net.scale}" / f"{path.stem}.png"))
        with torch.no_grad():
            out = net(low.permute(2, 0, 1)[None].float())[0].clamp(0, 255).round().byte()
        height, width = out.shape[1:]
        image = out.permute(1, 2, 0).numpy()
        scores[path.stem] = psnr(image, read_rgb(path)[:height, :width], paper(net.scale))
    return {**scores, "mean": float(np.mean(list(scores.values())))}


def read_rgb(path: Path) -> Bytes:
    """(H, W, 3)"""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), required=True)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders with the credited photographs")
    parser.add_argument(
        "--output", type=Path, required=True, help=f"safetensors file, renewed every {SAVE_EVERY} steps"
    )
    parser.add_argument("--init", type=Path, help="weight file to start from, of any scale")
    parser.add_argument("--set5", type=Path, help="folder with set5/ and set5_lr_x{scale}/: print the PSNR")
    parser.add_argument("--steps", type=int, default=15000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="end earlier, after this time")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=48, help="side of the low-resolution crops")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    photographs = load_pairs(args.photos, args.scale)
    if not photographs:
        raise SystemExit(f"none of the photographs in CREDITS is in {', '.join(map(str, args.photos))}; see --help")
    sampler = Sampler([p for pairs in photographs.values() for p in pairs], args.patch, args.scale, args.seed)
    net = Wdsr(args.scale)
    if args.init:
        initialise(net, safetensors.torch.load_file(args.init))
    count = sum(tensor.numel() for tensor in folded(net).values())
    print(f"{count} parameters, {len(sampler.cells)} cells of {len(photographs)} photographs", flush=True)
    train(net, sampler, args, Saver(args.output, list(photographs), args.init, args.set5))


if __name__ == "__main__":
    main()
