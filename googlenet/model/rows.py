"""What a network is made of, as data: rows, stages and heads.

Names of rows and convolutions are the names of parameters,
`inception_3a/conv_3x3_reduce/w`. They are stable: checkpoints, weight import
and decay masks rely on them.
"""

from typing import NamedTuple

from googlenet.kernels.padding import Padding

# As a width: as many channels as there are classes.
CLASSES = 0


class Conv(NamedTuple):
  """A convolution with its bias, or batch norm, and its activation."""

  name: str
  width: int  # channels that come out
  kernel_size: int | tuple[int, int]  # (height, width), or both
  stride: int = 1
  padding: Padding = 'SAME'
  is_linear: bool = False  # a bias, no batch norm, no activation

  @property
  def shape(self) -> tuple[int, int]:
    """Height and width of the kernel."""
    size = self.kernel_size
    return (size, size) if isinstance(size, int) else size


class MaxPool(NamedTuple):
  """Maximum of square windows."""

  window: int = 3
  stride: int = 2
  padding: Padding = 'SAME'


class AvgPool(NamedTuple):
  """Mean of square windows."""

  window: int = 3
  stride: int = 1
  padding: Padding = 'SAME'
  count_padding: bool = False  # the padding's zeros are part of the mean


class AdaptiveAvgPool(NamedTuple):
  """Mean of size x size windows of about equal size (PyTorch)."""

  size: int


class LocalResponseNorm(NamedTuple):
  """Krizhevsky et al. 2012, section 3.3; left out unless normalization='lrn'.

  The constants are those of Caffe's GoogLeNet; `alpha` counts for the window.
  """

  size: int = 5
  alpha: float = 1e-4
  beta: float = 0.75
  k: float = 1.0


class Dropout(NamedTuple):
  """Sets activations to zero in training, and scales the rest up."""

  rate: float | None = None  # None: the network's, or the field model.dropout
  place: int = 0  # among those of the stages; filled in by `resolve`


class Fork(NamedTuple):
  """Branches of one input, joined on channels."""

  branches: tuple['Branch', ...]


Op = Conv | MaxPool | AvgPool | AdaptiveAvgPool | Fork
Branch = tuple[Op, ...]


class ConvLayer(NamedTuple):
  """Convolutions in sequence under one name."""

  name: str
  convs: tuple[Conv, ...]


class Residual(NamedTuple):
  """x + scale * (a linear 1x1 convolution of the branches).

  Szegedy et al., 2016, arXiv 1602.07261, sections 3.2 and 3.3. Where x has
  another number of channels, a linear 1x1 convolution of it is added to.
  """

  width: int
  scale: float
  drop_rate: float = 0.0  # of the branches in training (stochastic depth)
  place: int = 0  # among the residual blocks, from 1


class Block(NamedTuple):
  """Parallel branches joined on channels, under one name."""

  name: str
  branches: tuple[Branch, ...]
  residual: Residual | None = None


Row = ConvLayer | Block | MaxPool | LocalResponseNorm | Dropout


class Stage(NamedTuple):
  """Rows in sequence; the output of a stage is an end point of that name."""

  name: str
  rows: tuple[Row, ...]


class GlobalMean(NamedTuple):
  """Mean over height and width: [B, H, W, C] -> [B, C]."""


class Flatten(NamedTuple):
  """[B, H, W, C] -> [B, H * W * C]."""


class Dense(NamedTuple):
  """A fully connected layer with bias and activation."""

  name: str
  width: int


HeadOp = Op | GlobalMean | Flatten | Dense | Dropout


class AuxHead(NamedTuple):
  """A classifier on the output of an earlier row: Szegedy et al. 2014, s. 5."""

  name: str
  after: str  # name of the row
  ops: tuple[HeadOp, ...]  # and then the logits


class Architecture(NamedTuple):
  """A network, and what it is when the config says 'auto'."""

  stages: tuple[Stage, ...]
  head: tuple[HeadOp, ...] = (GlobalMean(), Dropout())
  has_logits: bool = True  # a linear layer to the classes ends the network
  aux_heads: tuple[AuxHead, ...] = ()
  uses_aux_heads: bool = False
  normalization: str = 'none'  # or 'lrn', 'batch'
  dropout: float = 0.0
  initializer: str = 'he'
