"""Network in Network: Lin et al., 2013 (arXiv 1312.4400), as d2l.ai has it.

Its last block ends in one channel a class: a mean of each is the logit.
"""

from googlenet.architectures.rows import (
  CLASSES,
  Architecture,
  Conv,
  ConvLayer,
  Dropout,
  GlobalMean,
  MaxPool,
  Stage,
)
from googlenet.padding import Padding

_POOL = MaxPool(3, 2, 'VALID')


def _layer(
  name: str, width: int, kernel: int, stride: int, padding: Padding
) -> ConvLayer:
  """A convolution in space and two of 1x1 after it."""
  return ConvLayer(
    name,
    (
      Conv(f'conv_{kernel}x{kernel}', width, kernel, stride, padding),
      Conv('conv_1x1_1', width, 1),
      Conv('conv_1x1_2', width, 1),
    ),
  )


NIN = Architecture(
  (
    Stage('stage_1', (_layer('conv_1', 96, 11, 4, 'VALID'), _POOL)),
    Stage('stage_2', (_layer('conv_2', 256, 5, 1, 'SAME'), _POOL)),
    Stage('stage_3', (_layer('conv_3', 384, 3, 1, 'SAME'), _POOL)),
    Stage('stage_4', (Dropout(), _layer('conv_4', CLASSES, 3, 1, 'SAME'))),
  ),
  head=(GlobalMean(),),
  has_logits=False,
  dropout=0.5,
)
