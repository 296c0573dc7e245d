"""The names that other frameworks give to the modules of a network.

A module is named by the path of its parameters, `inception_3a/conv_1x1`. The
tables contain every module that a network may have.
Sources: torchvision/models/googlenet.py, inception.py, alexnet.py and vgg.py;
the prototxt of Caffe's bvlc_googlenet; lucent/modelzoo/inceptionv1 and, for the
heads, which lucent leaves out, the graph of inception5h by the same rule.
"""


def _each(
  modules: dict[str, str], parts: dict[str, str], joint: str
) -> dict[str, str]:
  """Returns the names of parts that several modules have in common."""
  return {
    f'{ours}/{part}': f'{theirs}{joint}{name}'
    for ours, theirs in modules.items()
    for part, name in parts.items()
  }


_BLOCKS = ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b')

CAFFE = {
  'conv_1/conv_7x7': 'conv1/7x7_s2',
  'conv_2/conv_3x3_reduce': 'conv2/3x3_reduce',
  'conv_2/conv_3x3': 'conv2/3x3',
  **_each(
    {f'inception_{block}': f'inception_{block}' for block in _BLOCKS},
    {
      'conv_1x1': '1x1',
      'conv_3x3_reduce': '3x3_reduce',
      'conv_3x3': '3x3',
      'conv_5x5_reduce': '5x5_reduce',
      'conv_5x5': '5x5',
      'pool_proj': 'pool_proj',
    },
    '/',
  ),
  **_each(
    {'aux_1': 'loss1', 'aux_2': 'loss2'},
    {'conv_1x1': 'conv', 'fc': 'fc', 'logits': 'classifier'},
    '/',
  ),
  'logits': 'loss3/classifier',
}

GOOGLENET = {
  'conv_1/conv_7x7': 'conv1',
  'conv_2/conv_3x3_reduce': 'conv2',
  'conv_2/conv_3x3': 'conv3',
  **_each(
    {f'inception_{block}': f'inception{block}' for block in _BLOCKS},
    {
      'conv_1x1': 'branch1',
      'conv_3x3_reduce': 'branch2.0',
      'conv_3x3': 'branch2.1',
      'conv_3x3_b_reduce': 'branch3.0',
      'conv_3x3_b': 'branch3.1',
      'pool_proj': 'branch4.1',
    },
    '.',
  ),
  **_each(
    {'aux_1': 'aux1', 'aux_2': 'aux2'},
    {'conv_1x1': 'conv', 'fc': 'fc1', 'logits': 'fc2'},
    '.',
  ),
  'logits': 'fc',
}

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

ALEXNET = {
  'conv_1/conv_11x11': 'features.0',
  'conv_2/conv_5x5': 'features.3',
  'conv_3/conv_3x3': 'features.6',
  'conv_4/conv_3x3': 'features.8',
  'conv_5/conv_3x3': 'features.10',
  'fc_6': 'classifier.1',
  'fc_7': 'classifier.4',
  'logits': 'classifier.6',
}

VGG_16 = {
  'conv_1/conv_3x3_1': 'features.0',
  'conv_1/conv_3x3_2': 'features.2',
  'conv_2/conv_3x3_1': 'features.5',
  'conv_2/conv_3x3_2': 'features.7',
  'conv_3/conv_3x3_1': 'features.10',
  'conv_3/conv_3x3_2': 'features.12',
  'conv_3/conv_3x3_3': 'features.14',
  'conv_4/conv_3x3_1': 'features.17',
  'conv_4/conv_3x3_2': 'features.19',
  'conv_4/conv_3x3_3': 'features.21',
  'conv_5/conv_3x3_1': 'features.24',
  'conv_5/conv_3x3_2': 'features.26',
  'conv_5/conv_3x3_3': 'features.28',
  'fc_6': 'classifier.0',
  'fc_7': 'classifier.3',
  'logits': 'classifier.6',
}
