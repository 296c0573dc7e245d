"""The InceptionV1 of the interpretability papers: Google's 'inception5h'.

TensorFlow's tutorials gave it away as tensorflow_inception_graph.pb; Feature
Visualization, the Circuits thread and OpenAI's Microscope are about it, and
lucid calls it InceptionV1. It has the blocks of Table 1 but for two widths, and
channels in the same order: `mixed4c:447` is channel 447 of `inception_4c`.
Images are red, green and blue from 0 to 255, minus 117.

Its response normalization sums over 11 channels (`depth_radius` 5), with bias
2, alpha 1e-4 and beta 0.5. TensorFlow does not divide alpha by the number of
channels; Caffe, PyTorch and this project do, so here it is 11 times as large.

lucent, the PyTorch port, has other constants (9 channels, alpha 1e-4 divided by
9, k 1: github.com/greentfrapp/lucent/pull/51) for the same weights. They are a
variant of their own, for those who compare with lucent.
"""

from googlenet.model import blocks
from googlenet.model.blocks import Widths
from googlenet.model.googlenet import PAPER, googlenet
from googlenet.model.rows import Architecture, Block, LocalResponseNorm

# Where the widths of its blocks differ from those of Table 1.
_WIDTHS = {'inception_4a': {'out_1': 204}, 'inception_5a': {'reduce_2': 48}}


def _block(name: str, widths: Widths) -> Block:
  return blocks.inception(name, widths._replace(**_WIDTHS.get(name, {})))


def _inception5h(norm: LocalResponseNorm) -> Architecture:
  """Returns the network with this response normalization.

  Padding is 'SAME' as in TensorFlow; dropout and heads are those of the paper.
  """
  stages = tuple(
    stage._replace(
      rows=tuple(
        norm if isinstance(row, LocalResponseNorm) else row
        for row in stage.rows
      )
    )
    for stage in googlenet(_block)
  )
  return PAPER._replace(stages=stages)


INCEPTION5H = _inception5h(
  LocalResponseNorm(size=11, alpha=11e-4, beta=0.5, k=2.0)
)
INCEPTION5H_LUCENT = _inception5h(
  LocalResponseNorm(size=9, alpha=1e-4, beta=0.5, k=1.0)
)
