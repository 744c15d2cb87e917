"""The super-resolution networks, one function per architecture: hyper-parameters in, `Model` out.

Each architecture is written once, here; importers rename a file's parameters and call the builder.

>>> from graphsr.models import wdsr_a
>>> wdsr_a(scale=4, blocks=32, features=32, expanded=192).parameters
3564528
"""

from graphsr.models.builder import Source
from graphsr.models.edsr import edsr, mdsr
from graphsr.models.espcn import espcn
from graphsr.models.normalisation import DIV2K_MEAN
from graphsr.models.srresnet import srresnet
from graphsr.models.wdsr import wdsr_a, wdsr_b

__all__ = ["DIV2K_MEAN", "Source", "edsr", "espcn", "mdsr", "srresnet", "wdsr_a", "wdsr_b"]
