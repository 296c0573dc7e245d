"""The names that other frameworks give to the modules of a network.

A module is named by the path of its parameters, `inception_3a/conv_1x1`. The
tables contain every module that a network may have.
Sources: torchvision/models/googlenet.py, inception.py, alexnet.py and vgg.py;
the prototxt of Caffe's bvlc_googlenet; lucent/modelzoo/inceptionv1 and, for the
heads, which lucent leaves out, the graph of inception5h by the same rule.
"""

from collections.abc import Sequence

_BLOCKS = ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b')


def _each(
  modules: dict[str, str], parts: dict[str, str], joint: str
) -> dict[str, str]:
  """Returns the names of parts that several modules have in common."""
  return {
    f'{ours}/{part}': f'{theirs}{joint}{name}'
    for ours, theirs in modules.items()
    for part, name in parts.items()
  }


def _googlenet(
  stem: Sequence[str],
  block: str,
  branches: dict[str, str],
  heads: Sequence[str],
  head_layers: Sequence[str],
  logits: str,
  joint: str,
) -> dict[str, str]:
  """Returns the names of a network of the paper's form (Table 1).

  Args:
    stem: names of its three convolutions.
    block: what stands before '3a' to '5b'.
    branches: the parts of a block.
    heads: the two auxiliary heads.
    head_layers: the convolution and the two dense layers of a head.
    logits: the classifier.
    joint: between a block or head and its part.
  """
  convolutions = 'conv_1/conv_7x7', 'conv_2/conv_3x3_reduce', 'conv_2/conv_3x3'
  return {
    **dict(zip(convolutions, stem, strict=True)),
    **_each(
      {f'inception_{b}': f'{block}{b}' for b in _BLOCKS}, branches, joint
    ),
    **_each(
      dict(zip(('aux_1', 'aux_2'), heads, strict=True)),
      dict(zip(('conv_1x1', 'fc', 'logits'), head_layers, strict=True)),
      joint,
    ),
    'logits': logits,
  }


def _numbered(**lists: dict[str, int]) -> dict[str, str]:
  """Returns the names of layers that are numbered within a few lists."""
  return {
    module: f'{name}.{number}'
    for name, numbers in lists.items()
    for module, number in numbers.items()
  }


CAFFE = _googlenet(
  stem=('conv1/7x7_s2', 'conv2/3x3_reduce', 'conv2/3x3'),
  block='inception_',
  branches={
    'conv_1x1': '1x1',
    'conv_3x3_reduce': '3x3_reduce',
    'conv_3x3': '3x3',
    'conv_5x5_reduce': '5x5_reduce',
    'conv_5x5': '5x5',
    'pool_proj': 'pool_proj',
  },
  heads=('loss1', 'loss2'),
  head_layers=('conv', 'fc', 'classifier'),
  logits='loss3/classifier',
  joint='/',
)

GOOGLENET = _googlenet(
  stem=('conv1', 'conv2', 'conv3'),
  block='inception',
  branches={
    'conv_1x1': 'branch1',
    'conv_3x3_reduce': 'branch2.0',
    'conv_3x3': 'branch2.1',
    'conv_3x3_b_reduce': 'branch3.0',
    'conv_3x3_b': 'branch3.1',
    'pool_proj': 'branch4.1',
  },
  heads=('aux1', 'aux2'),
  head_layers=('conv', 'fc1', 'fc2'),
  logits='fc',
  joint='.',
)

INCEPTION5H = {
  'conv_1/conv_7x7': 'conv2d0_pre_relu_conv',
  'conv_2/conv_3x3_reduce': 'conv2d1_pre_relu_conv',
  'conv_2/conv_3x3': 'conv2d2_pre_relu_conv',
  **_each(
    {f'inception_{block}': f'mixed{block}' for block in _BLOCKS},
    {
      'conv_1x1': '1x1_pre_relu_conv',
      'conv_3x3_reduce': '3x3_bottleneck_pre_relu_conv',
      'conv_3x3': '3x3_pre_relu_conv',
      'conv_5x5_reduce': '5x5_bottleneck_pre_relu_conv',
      'conv_5x5': '5x5_pre_relu_conv',
      'pool_proj': 'pool_reduce_pre_relu_conv',
    },
    '_',
  ),
  'aux_1/conv_1x1': 'head0_bottleneck_pre_relu_conv',
  'aux_1/fc': 'nn0_pre_relu_matmul',
  'aux_1/logits': 'softmax0_pre_activation_matmul',
  'aux_2/conv_1x1': 'head1_bottleneck_pre_relu_conv',
  'aux_2/fc': 'nn1_pre_relu_matmul',
  'aux_2/logits': 'softmax1_pre_activation_matmul',
  'logits': 'softmax2_pre_activation_matmul',
}

INCEPTION_V3 = {
  'conv_1/conv_3x3_1': 'Conv2d_1a_3x3',
  'conv_1/conv_3x3_2': 'Conv2d_2a_3x3',
  'conv_1/conv_3x3_3': 'Conv2d_2b_3x3',
  'conv_2/conv_3x3_reduce': 'Conv2d_3b_1x1',
  'conv_2/conv_3x3': 'Conv2d_4a_3x3',
  **_each(
    {f'inception_{block}': f'Mixed_{block}' for block in ('5b', '5c', '5d')},
    {
      'conv_1x1': 'branch1x1',
      'conv_5x5_reduce': 'branch5x5_1',
      'conv_5x5': 'branch5x5_2',
      'conv_double_3x3_reduce': 'branch3x3dbl_1',
      'conv_double_3x3_1': 'branch3x3dbl_2',
      'conv_double_3x3_2': 'branch3x3dbl_3',
      'pool_proj': 'branch_pool',
    },
    '.',
  ),
  **_each(
    {'reduction_6a': 'Mixed_6a'},
    {
      'conv_3x3': 'branch3x3',
      'conv_double_3x3_reduce': 'branch3x3dbl_1',
      'conv_double_3x3_1': 'branch3x3dbl_2',
      'conv_double_3x3_2': 'branch3x3dbl_3',
    },
    '.',
  ),
  **_each(
    {f'inception_6{block}': f'Mixed_6{block}' for block in 'bcde'},
    {
      'conv_1x1': 'branch1x1',
      'conv_7x7_reduce': 'branch7x7_1',
      'conv_1x7': 'branch7x7_2',
      'conv_7x1': 'branch7x7_3',
      'conv_double_7x7_reduce': 'branch7x7dbl_1',
      'conv_double_7x1_1': 'branch7x7dbl_2',
      'conv_double_1x7_1': 'branch7x7dbl_3',
      'conv_double_7x1_2': 'branch7x7dbl_4',
      'conv_double_1x7_2': 'branch7x7dbl_5',
      'pool_proj': 'branch_pool',
    },
    '.',
  ),
  **_each(
    {'reduction_7a': 'Mixed_7a'},
    {
      'conv_3x3_reduce': 'branch3x3_1',
      'conv_3x3': 'branch3x3_2',
      'conv_7x7_reduce': 'branch7x7x3_1',
      'conv_1x7': 'branch7x7x3_2',
      'conv_7x1': 'branch7x7x3_3',
      'conv_7x7_3x3': 'branch7x7x3_4',
    },
    '.',
  ),
  **_each(
    {'inception_7b': 'Mixed_7b', 'inception_7c': 'Mixed_7c'},
    {
      'conv_1x1': 'branch1x1',
      'conv_3x3_reduce': 'branch3x3_1',
      'conv_1x3': 'branch3x3_2a',
      'conv_3x1': 'branch3x3_2b',
      'conv_double_3x3_reduce': 'branch3x3dbl_1',
      'conv_double_3x3': 'branch3x3dbl_2',
      'conv_double_1x3': 'branch3x3dbl_3a',
      'conv_double_3x1': 'branch3x3dbl_3b',
      'pool_proj': 'branch_pool',
    },
    '.',
  ),
  **_each(
    {'aux_1': 'AuxLogits'},
    {'conv_1x1': 'conv0', 'conv_5x5': 'conv1', 'logits': 'fc'},
    '.',
  ),
  'logits': 'fc',
}

# pytorch-fid and torch-fidelity name it like that, without a head.
INCEPTION_FID = {
  ours: theirs
  for ours, theirs in INCEPTION_V3.items()
  if not ours.startswith('aux_1/')
}

ALEXNET = _numbered(
  features={
    'conv_1/conv_11x11': 0,
    'conv_2/conv_5x5': 3,
    'conv_3/conv_3x3': 6,
    'conv_4/conv_3x3': 8,
    'conv_5/conv_3x3': 10,
  },
  classifier={'fc_6': 1, 'fc_7': 4, 'logits': 6},
)

VGG_16 = _numbered(
  features={
    'conv_1/conv_3x3_1': 0,
    'conv_1/conv_3x3_2': 2,
    'conv_2/conv_3x3_1': 5,
    'conv_2/conv_3x3_2': 7,
    'conv_3/conv_3x3_1': 10,
    'conv_3/conv_3x3_2': 12,
    'conv_3/conv_3x3_3': 14,
    'conv_4/conv_3x3_1': 17,
    'conv_4/conv_3x3_2': 19,
    'conv_4/conv_3x3_3': 21,
    'conv_5/conv_3x3_1': 24,
    'conv_5/conv_3x3_2': 26,
    'conv_5/conv_3x3_3': 28,
  },
  classifier={'fc_6': 0, 'fc_7': 3, 'logits': 6},
)
