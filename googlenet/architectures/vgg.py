"""VGG-16: Simonyan and Zisserman, 2014 (arXiv 1409.1556), Table 1, column D."""

from googlenet.architectures.rows import (
  Architecture,
  Conv,
  ConvLayer,
  Dense,
  Dropout,
  Flatten,
  MaxPool,
  Stage,
)

# Width and number of the 3x3 convolutions, by stage.
_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

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
    for i, (width, count) in enumerate(_STAGES, start=1)
  ),
  head=(
    Flatten(),
    Dense('fc_6', 4096),
    Dropout(),
    Dense('fc_7', 4096),
    Dropout(),
  ),
  dropout=0.5,
)
