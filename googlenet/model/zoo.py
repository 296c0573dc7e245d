"""Other networks of the time, to compare with GoogLeNet.

AlexNet: Krizhevsky et al., 2012, with maps of 55, 27, 13, 6 pixels, in one
column; and torchvision's AlexNet, that of Krizhevsky, 2014 (arXiv 1404.5997),
which is narrower. VGG-16: Simonyan and Zisserman, 2014 (arXiv 1409.1556), Table
1, column D. Network in Network: Lin et al., 2013 (arXiv 1312.4400), in the
version of d2l.ai; its last block has one channel per class, whose mean is the
logit.
"""

from googlenet.kernels.padding import Padding
from googlenet.model.rows import (
  CLASSES,
  LOGITS,
  Architecture,
  Conv,
  ConvLayer,
  Dense,
  Dropout,
  Flatten,
  GlobalMean,
  LocalResponseNorm,
  MaxPool,
  Stage,
)

_POOL = MaxPool(3, 2, 'VALID')

ALEXNET = Architecture(
  (
    Stage(
      'stage_1',
      (
        ConvLayer('conv_1', (Conv('conv_11x11', 96, 11, 4, 2),)),
        LocalResponseNorm(alpha=5e-4, k=2.0),
        _POOL,
      ),
    ),
    Stage(
      'stage_2',
      (
        ConvLayer('conv_2', (Conv('conv_5x5', 256, 5),)),
        LocalResponseNorm(alpha=5e-4, k=2.0),
        _POOL,
      ),
    ),
    Stage(
      'stage_3',
      (
        ConvLayer('conv_3', (Conv('conv_3x3', 384, 3),)),
        ConvLayer('conv_4', (Conv('conv_3x3', 384, 3),)),
        ConvLayer('conv_5', (Conv('conv_3x3', 256, 3),)),
        _POOL,
      ),
    ),
  ),
  head=(
    Flatten(),
    Dense('fc_6', 4096),
    Dropout(),
    Dense('fc_7', 4096),
    Dropout(),
    LOGITS,
  ),
  dropout=0.5,
)

ALEXNET_TORCHVISION = Architecture(
  (
    Stage(
      'stage_1',
      (ConvLayer('conv_1', (Conv('conv_11x11', 64, 11, 4, 2),)), _POOL),
    ),
    Stage('stage_2', (ConvLayer('conv_2', (Conv('conv_5x5', 192, 5),)), _POOL)),
    Stage(
      'stage_3',
      (
        ConvLayer('conv_3', (Conv('conv_3x3', 384, 3),)),
        ConvLayer('conv_4', (Conv('conv_3x3', 256, 3),)),
        ConvLayer('conv_5', (Conv('conv_3x3', 256, 3),)),
        _POOL,
      ),
    ),
  ),
  head=(
    Flatten(),
    Dropout(),
    Dense('fc_6', 4096),
    Dropout(),
    Dense('fc_7', 4096),
    LOGITS,
  ),
  dropout=0.5,
)

# VGG-16: width and number of the 3x3 convolutions of each stage.
_VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

VGG_16 = Architecture(
  tuple(
    Stage(
      f'stage_{i}',
      (
        ConvLayer(
          f'conv_{i}',
          tuple(Conv(f'conv_3x3_{j + 1}', width, 3) for j in range(count)),
        ),
        MaxPool(2, 2, 'VALID'),
      ),
    )
    for i, (width, count) in enumerate(_VGG_STAGES, start=1)
  ),
  head=(
    Flatten(),
    Dense('fc_6', 4096),
    Dropout(),
    Dense('fc_7', 4096),
    Dropout(),
    LOGITS,
  ),
  dropout=0.5,
)


def _nin_layer(
  name: str, width: int, kernel: int, stride: int, padding: Padding
) -> ConvLayer:
  """Returns a NiN block: a convolution followed by two 1x1 convolutions."""
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
    Stage('stage_1', (_nin_layer('conv_1', 96, 11, 4, 'VALID'), _POOL)),
    Stage('stage_2', (_nin_layer('conv_2', 256, 5, 1, 'SAME'), _POOL)),
    Stage('stage_3', (_nin_layer('conv_3', 384, 3, 1, 'SAME'), _POOL)),
    Stage('stage_4', (Dropout(), _nin_layer('conv_4', CLASSES, 3, 1, 'SAME'))),
  ),
  head=(GlobalMean(),),
  dropout=0.5,
)

# By value of `config.model.variant`.
ZOO = {
  'alexnet': ALEXNET,
  'alexnet_torchvision': ALEXNET_TORCHVISION,
  'vgg16': VGG_16,
  'nin': NIN,
}
