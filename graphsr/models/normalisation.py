"""How pixel values become what the first convolution sees: the part of a network that checkpoints do not say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphsr.errors import ModelError
from graphsr.op import Array

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of R, G, B over the training images of DIV2K, white at 1 (Lim et al. 2017, EDSR)."""


@dataclass(frozen=True)
class Normalisation:
    """z = (x / input_range − mean) · network_range, and its inverse behind the network.

    White is `input_range` at the input and output of the model; `mean` is given with white at 1. EDSR computes on
    0..255 less the mean (network_range 255), WDSR on about −1..1 (network_range 2: (x − 255·mean) / 127.5).
    """

    input_range: float
    network_range: float
    mean: tuple[float, float, float] = DIV2K_MEAN

    def __post_init__(self) -> None:
        for name in ("input_range", "network_range"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ModelError(f"{name} must be a positive number, such as 255 or 1, got {value!r}")
        mean = np.array(self.mean)
        if mean.shape != (3,) or mean.dtype.kind not in "iuf" or not np.isfinite(mean).all():
            raise ModelError(f"mean must be three numbers (R, G, B with white at 1), got {self.mean!r}")

    @property
    def divisor(self) -> float:
        """How many units of input are one unit to the network: 127.5 for WDSR."""
        return self.input_range / self.network_range

    def offset(self, white: float) -> Array:
        """The mean [3] where white has this value."""
        return (np.array(self.mean) * white).astype(np.float32)
