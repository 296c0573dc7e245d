"""Networks of others in plain PyTorch, for weights_torch_test.

Structure and names of torchvision/models/googlenet.py and inception.py (without
their transform_input), of pytorch_fid/inception.py, of
lucent/modelzoo/inceptionv1, and of Caffe's train_val.prototxt with one module
for each layer that has weights. Dropout is left out: tests compare without it.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn


def photo(width, height):
  """An image of smooth colours, with some noise on it."""
  rng = np.random.default_rng(0)
  blocks = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
  smooth = np.asarray(blocks.resize((width, height), Image.BICUBIC), int)
  pixels = smooth + rng.integers(-20, 21, smooth.shape)
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


class BasicConv2d(nn.Module):
  def __init__(self, in_channels, out_channels, **kwargs):
    super().__init__()
    self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **kwargs)
    self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)))


# ---- torchvision.models.googlenet


class Inception(nn.Module):
  def __init__(self, in_channels, ch1, red3, ch3, red5, ch5, pool_proj):
    super().__init__()
    self.branch1 = BasicConv2d(in_channels, ch1, kernel_size=1)
    self.branch2 = nn.Sequential(
      BasicConv2d(in_channels, red3, kernel_size=1),
      BasicConv2d(red3, ch3, kernel_size=3, padding=1),
    )
    self.branch3 = nn.Sequential(
      BasicConv2d(in_channels, red5, kernel_size=1),
      # 3 in place of 5: https://github.com/pytorch/vision/issues/906
      BasicConv2d(red5, ch5, kernel_size=3, padding=1),
    )
    self.branch4 = nn.Sequential(
      nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True),
      BasicConv2d(in_channels, pool_proj, kernel_size=1),
    )

  def forward(self, x):
    branches = (self.branch1, self.branch2, self.branch3, self.branch4)
    return torch.cat([branch(x) for branch in branches], 1)


class InceptionAux(nn.Module):
  def __init__(self, in_channels, num_classes):
    super().__init__()
    self.conv = BasicConv2d(in_channels, 128, kernel_size=1)
    self.fc1 = nn.Linear(2048, 1024)
    self.fc2 = nn.Linear(1024, num_classes)

  def forward(self, x):
    x = self.conv(F.adaptive_avg_pool2d(x, (4, 4)))
    return self.fc2(F.relu(self.fc1(torch.flatten(x, 1))))


class GoogLeNet(nn.Module):
  """torchvision.models.googlenet(aux_logits=..., init_weights=False)."""

  def __init__(self, num_classes, aux_logits=True):
    super().__init__()
    self.conv1 = BasicConv2d(3, 64, kernel_size=7, stride=2, padding=3)
    self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    self.conv2 = BasicConv2d(64, 64, kernel_size=1)
    self.conv3 = BasicConv2d(64, 192, kernel_size=3, padding=1)
    self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
    self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
    self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
    self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
    self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
    self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
    self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
    self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
    self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
    self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
    self.aux1 = InceptionAux(512, num_classes) if aux_logits else None
    self.aux2 = InceptionAux(528, num_classes) if aux_logits else None
    self.fc = nn.Linear(1024, num_classes)

  def forward(self, x):
    """Returns the logits and those of the heads by our names."""
    aux = {}
    x = self.maxpool1(self.conv1(x))
    x = self.maxpool2(self.conv3(self.conv2(x)))
    x = self.maxpool3(self.inception3b(self.inception3a(x)))
    x = self.inception4a(x)
    if self.aux1 is not None:
      aux['aux_1'] = self.aux1(x)
    x = self.inception4d(self.inception4c(self.inception4b(x)))
    if self.aux2 is not None:
      aux['aux_2'] = self.aux2(x)
    x = self.maxpool4(self.inception4e(x))
    x = self.inception5b(self.inception5a(x))
    x = torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
    return self.fc(x), aux


# ---- torchvision.models.inception_v3


def padded_mean(x):
  return F.avg_pool2d(x, 3, stride=1, padding=1)


class InceptionA(nn.Module):
  pool = staticmethod(padded_mean)

  def __init__(self, in_channels, pool_features):
    super().__init__()
    self.branch1x1 = BasicConv2d(in_channels, 64, kernel_size=1)
    self.branch5x5_1 = BasicConv2d(in_channels, 48, kernel_size=1)
    self.branch5x5_2 = BasicConv2d(48, 64, kernel_size=5, padding=2)
    self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, kernel_size=1)
    self.branch3x3dbl_2 = BasicConv2d(64, 96, kernel_size=3, padding=1)
    self.branch3x3dbl_3 = BasicConv2d(96, 96, kernel_size=3, padding=1)
    self.branch_pool = BasicConv2d(in_channels, pool_features, kernel_size=1)

  def forward(self, x):
    branch5x5 = self.branch5x5_2(self.branch5x5_1(x))
    dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
    pool = self.branch_pool(self.pool(x))
    return torch.cat([self.branch1x1(x), branch5x5, dbl, pool], 1)


class InceptionB(nn.Module):
  def __init__(self, in_channels):
    super().__init__()
    self.branch3x3 = BasicConv2d(in_channels, 384, kernel_size=3, stride=2)
    self.branch3x3dbl_1 = BasicConv2d(in_channels, 64, kernel_size=1)
    self.branch3x3dbl_2 = BasicConv2d(64, 96, kernel_size=3, padding=1)
    self.branch3x3dbl_3 = BasicConv2d(96, 96, kernel_size=3, stride=2)

  def forward(self, x):
    dbl = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
    pool = F.max_pool2d(x, kernel_size=3, stride=2)
    return torch.cat([self.branch3x3(x), dbl, pool], 1)


_ROW = {'kernel_size': (1, 7), 'padding': (0, 3)}
_COLUMN = {'kernel_size': (7, 1), 'padding': (3, 0)}


class InceptionC(nn.Module):
  pool = staticmethod(padded_mean)

  def __init__(self, in_channels, c7):
    super().__init__()
    self.branch1x1 = BasicConv2d(in_channels, 192, kernel_size=1)
    self.branch7x7_1 = BasicConv2d(in_channels, c7, kernel_size=1)
    self.branch7x7_2 = BasicConv2d(c7, c7, **_ROW)
    self.branch7x7_3 = BasicConv2d(c7, 192, **_COLUMN)
    self.branch7x7dbl_1 = BasicConv2d(in_channels, c7, kernel_size=1)
    self.branch7x7dbl_2 = BasicConv2d(c7, c7, **_COLUMN)
    self.branch7x7dbl_3 = BasicConv2d(c7, c7, **_ROW)
    self.branch7x7dbl_4 = BasicConv2d(c7, c7, **_COLUMN)
    self.branch7x7dbl_5 = BasicConv2d(c7, 192, **_ROW)
    self.branch_pool = BasicConv2d(in_channels, 192, kernel_size=1)

  def forward(self, x):
    branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
    dbl = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
    dbl = self.branch7x7dbl_5(self.branch7x7dbl_4(dbl))
    pool = self.branch_pool(self.pool(x))
    return torch.cat([self.branch1x1(x), branch7x7, dbl, pool], 1)


class InceptionD(nn.Module):
  def __init__(self, in_channels):
    super().__init__()
    self.branch3x3_1 = BasicConv2d(in_channels, 192, kernel_size=1)
    self.branch3x3_2 = BasicConv2d(192, 320, kernel_size=3, stride=2)
    self.branch7x7x3_1 = BasicConv2d(in_channels, 192, kernel_size=1)
    self.branch7x7x3_2 = BasicConv2d(192, 192, **_ROW)
    self.branch7x7x3_3 = BasicConv2d(192, 192, **_COLUMN)
    self.branch7x7x3_4 = BasicConv2d(192, 192, kernel_size=3, stride=2)

  def forward(self, x):
    branch7x7x3 = self.branch7x7x3_2(self.branch7x7x3_1(x))
    branch7x7x3 = self.branch7x7x3_4(self.branch7x7x3_3(branch7x7x3))
    pool = F.max_pool2d(x, kernel_size=3, stride=2)
    return torch.cat(
      [self.branch3x3_2(self.branch3x3_1(x)), branch7x7x3, pool], 1
    )


class InceptionE(nn.Module):
  pool = staticmethod(padded_mean)

  def __init__(self, in_channels):
    super().__init__()
    row = {'kernel_size': (1, 3), 'padding': (0, 1)}
    column = {'kernel_size': (3, 1), 'padding': (1, 0)}
    self.branch1x1 = BasicConv2d(in_channels, 320, kernel_size=1)
    self.branch3x3_1 = BasicConv2d(in_channels, 384, kernel_size=1)
    self.branch3x3_2a = BasicConv2d(384, 384, **row)
    self.branch3x3_2b = BasicConv2d(384, 384, **column)
    self.branch3x3dbl_1 = BasicConv2d(in_channels, 448, kernel_size=1)
    self.branch3x3dbl_2 = BasicConv2d(448, 384, kernel_size=3, padding=1)
    self.branch3x3dbl_3a = BasicConv2d(384, 384, **row)
    self.branch3x3dbl_3b = BasicConv2d(384, 384, **column)
    self.branch_pool = BasicConv2d(in_channels, 192, kernel_size=1)

  def forward(self, x):
    x3 = self.branch3x3_1(x)
    dbl = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
    return torch.cat(
      [
        self.branch1x1(x),
        self.branch3x3_2a(x3),
        self.branch3x3_2b(x3),
        self.branch3x3dbl_3a(dbl),
        self.branch3x3dbl_3b(dbl),
        self.branch_pool(self.pool(x)),
      ],
      1,
    )


class InceptionV3Aux(nn.Module):
  def __init__(self, in_channels, num_classes):
    super().__init__()
    self.conv0 = BasicConv2d(in_channels, 128, kernel_size=1)
    self.conv1 = BasicConv2d(128, 768, kernel_size=5)
    self.fc = nn.Linear(768, num_classes)

  def forward(self, x):
    x = self.conv1(self.conv0(F.avg_pool2d(x, kernel_size=5, stride=3)))
    return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class InceptionV3(nn.Module):
  """torchvision.models.inception_v3(aux_logits=..., init_weights=False)."""

  def __init__(self, num_classes, aux_logits=True):
    super().__init__()
    self.Conv2d_1a_3x3 = BasicConv2d(3, 32, kernel_size=3, stride=2)
    self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
    self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
    self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2)
    self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
    self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
    self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2)
    self.Mixed_5b = InceptionA(192, pool_features=32)
    self.Mixed_5c = InceptionA(256, pool_features=64)
    self.Mixed_5d = InceptionA(288, pool_features=64)
    self.Mixed_6a = InceptionB(288)
    self.Mixed_6b = InceptionC(768, c7=128)
    self.Mixed_6c = InceptionC(768, c7=160)
    self.Mixed_6d = InceptionC(768, c7=160)
    self.Mixed_6e = InceptionC(768, c7=192)
    self.AuxLogits = InceptionV3Aux(768, num_classes) if aux_logits else None
    self.Mixed_7a = InceptionD(768)
    self.Mixed_7b = InceptionE(1280)
    self.Mixed_7c = InceptionE(2048)
    self.fc = nn.Linear(2048, num_classes)

  def forward(self, x):
    """Returns the logits and those of the head by our name."""
    x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
    x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
    x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
    x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
    x = self.Mixed_6e(self.Mixed_6d(x))
    aux = {}
    if self.AuxLogits is not None:
      aux['aux_1'] = self.AuxLogits(x)
    x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
    self.pooled = torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
    return self.fc(self.pooled), aux


def mean_without_padding(x):
  return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class FidInceptionV3(InceptionV3):
  """pytorch_fid.inception.fid_inception_v3; features are in `pooled`."""

  def __init__(self, num_classes):
    super().__init__(num_classes, aux_logits=False)
    for name, block in self.named_children():
      if name == 'Mixed_7c':
        block.pool = lambda x: F.max_pool2d(x, 3, stride=1, padding=1)
      elif hasattr(block, 'pool'):
        block.pool = mean_without_padding


# ---- Caffe's bvlc_googlenet


class CaffeGoogLeNet(nn.Module):
  """train_val.prototxt: layers by name, data in BGR.

  Heads are made for maps of `side` x `side` (4 at 224 pixels).
  """

  # 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj
  BLOCKS = {
    '3a': (64, 96, 128, 16, 32, 32),
    '3b': (128, 128, 192, 32, 96, 64),
    '4a': (192, 96, 208, 16, 48, 64),
    '4b': (160, 112, 224, 24, 64, 64),
    '4c': (128, 128, 256, 24, 64, 64),
    '4d': (112, 144, 288, 32, 64, 64),
    '4e': (256, 160, 320, 32, 128, 128),
    '5a': (256, 160, 320, 32, 128, 128),
    '5b': (384, 192, 384, 48, 128, 128),
  }

  def __init__(self, num_classes, side=4):
    super().__init__()
    self.layers = nn.ModuleDict()

    def conv(name, c_in, c_out, size, stride=1):
      self.layers[name] = nn.Conv2d(c_in, c_out, size, stride, size // 2)

    conv('conv1/7x7_s2', 3, 64, 7, 2)
    conv('conv2/3x3_reduce', 64, 64, 1)
    conv('conv2/3x3', 64, 192, 3)
    c_in = 192
    for block, (one, red3, three, red5, five, pool) in self.BLOCKS.items():
      name = f'inception_{block}'
      conv(f'{name}/1x1', c_in, one, 1)
      conv(f'{name}/3x3_reduce', c_in, red3, 1)
      conv(f'{name}/3x3', red3, three, 3)
      conv(f'{name}/5x5_reduce', c_in, red5, 1)
      conv(f'{name}/5x5', red5, five, 5)
      conv(f'{name}/pool_proj', c_in, pool, 1)
      c_in = one + three + five + pool
    for loss, c_in in (('loss1', 512), ('loss2', 528)):
      conv(f'{loss}/conv', c_in, 128, 1)
      self.layers[f'{loss}/fc'] = nn.Linear(128 * side * side, 1024)
      self.layers[f'{loss}/classifier'] = nn.Linear(1024, num_classes)
    self.layers['loss3/classifier'] = nn.Linear(1024, num_classes)

  def blobs(self, of=lambda parameter: parameter):
    """Returns what pycaffe's net.params has, as arrays by name and number."""
    return {
      f'{name}/{i}': of(tensor).detach().numpy()
      for name, layer in self.layers.items()
      for i, tensor in enumerate((layer.weight, layer.bias))
    }

  def _conv(self, name, x):
    return F.relu(self.layers[name](x))

  def _block(self, name, x):
    pooled = F.max_pool2d(x, 3, stride=1, padding=1)
    return torch.cat(
      [
        self._conv(f'{name}/1x1', x),
        self._conv(f'{name}/3x3', self._conv(f'{name}/3x3_reduce', x)),
        self._conv(f'{name}/5x5', self._conv(f'{name}/5x5_reduce', x)),
        self._conv(f'{name}/pool_proj', pooled),
      ],
      1,
    )

  def _head(self, name, x):
    x = F.avg_pool2d(x, 5, stride=3, ceil_mode=True)
    x = torch.flatten(self._conv(f'{name}/conv', x), 1)
    x = F.relu(self.layers[f'{name}/fc'](x))
    return self.layers[f'{name}/classifier'](x)

  def forward(self, x):
    """Returns the logits and those of the heads by our names."""
    lrn = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

    def pool(x):
      return F.max_pool2d(x, 3, stride=2, ceil_mode=True)

    x = lrn(pool(self._conv('conv1/7x7_s2', x)))
    x = self._conv('conv2/3x3', self._conv('conv2/3x3_reduce', x))
    x = pool(lrn(x))
    aux = {}
    for block in self.BLOCKS:
      x = self._block(f'inception_{block}', x)
      if block in ('3b', '4e'):
        x = pool(x)
      head = {'4a': 1, '4d': 2}.get(block)
      if head:
        aux[f'aux_{head}'] = self._head(f'loss{head}', x)
    x = torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
    return self.layers['loss3/classifier'](x), aux


# ---- lucent.modelzoo.inceptionv1, and the graph that it is made from


class Inception5h(nn.Module):
  """InceptionV1 with the response normalization of TensorFlow's graph.

  Padding is written out as TensorFlow's 'SAME' pads even sizes.
  """

  # 1x1, 3x3_bottleneck, 3x3, 5x5_bottleneck, 5x5, pool_reduce
  BLOCKS = CaffeGoogLeNet.BLOCKS | {
    '4a': (192, 96, 204, 16, 48, 64),
    '5a': (256, 160, 320, 48, 128, 128),
  }
  PARTS = (
    *('1x1', '3x3_bottleneck', '3x3'),
    *('5x5_bottleneck', '5x5', 'pool_reduce'),
  )

  def __init__(self, num_classes):
    super().__init__()

    def conv(name, c_in, c_out, size=1, stride=1):
      layer = nn.Conv2d(c_in, c_out, size, stride)
      setattr(self, f'{name}_pre_relu_conv', layer)

    conv('conv2d0', 3, 64, 7, 2)
    conv('conv2d1', 64, 64)
    conv('conv2d2', 64, 192, 3)
    c_in = 192
    for block, widths in self.BLOCKS.items():
      one, red3, three, red5, five, pool = widths
      inputs = (c_in, c_in, red3, c_in, red5, c_in)
      for part, n, width in zip(self.PARTS, inputs, widths, strict=True):
        size = int(part[0]) if part in ('3x3', '5x5') else 1
        conv(f'mixed{block}_{part}', n, width, size)
      c_in = one + three + five + pool
    self.softmax2_pre_activation_matmul = nn.Linear(1024, num_classes)

  def _norm(self, x):
    """tf.nn.lrn(x, depth_radius=5, bias=2, alpha=1e-4, beta=0.5)."""
    squares = F.pad(x**2, (0, 0, 0, 0, 5, 5))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(11))
    return x / (2 + 1e-4 * total) ** 0.5

  def _conv(self, name, x):
    layer = getattr(self, f'{name}_pre_relu_conv')
    before = (layer.kernel_size[0] - layer.stride[0]) // 2
    after = layer.kernel_size[0] - layer.stride[0] - before
    y = layer(F.pad(x, (before, after, before, after)))
    self.maps[f'{name}_pre_relu'] = y
    return self._keep(name, F.relu(y))

  def _keep(self, name, x):
    self.maps[name] = x
    return x

  def _pool(self, name, x):
    padded = F.pad(x, (0, 1, 0, 1), value=-torch.inf)
    return self._keep(name, F.max_pool2d(padded, 3, stride=2))

  def _block(self, name, x):
    padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    pooled = self._keep(f'{name}_pool', F.max_pool2d(padded, 3, stride=1))
    self._conv(f'{name}_1x1', x)
    self._conv(f'{name}_3x3', self._conv(f'{name}_3x3_bottleneck', x))
    self._conv(f'{name}_5x5', self._conv(f'{name}_5x5_bottleneck', x))
    self._conv(f'{name}_pool_reduce', pooled)
    branches = [f'{name}_{end}' for end in ('1x1', '3x3', '5x5', 'pool_reduce')]
    pres = [self.maps[f'{branch}_pre_relu'] for branch in branches]
    self._keep(f'{name}_pre_relu', torch.cat(pres, 1))
    return self._keep(name, torch.cat([self.maps[b] for b in branches], 1))

  def forward(self, x):
    """Returns the logits, and no heads; `maps` has the rest by lucid's name."""
    self.maps = {}
    x = self._pool('maxpool0', self._conv('conv2d0', x))
    x = self._keep('localresponsenorm0', self._norm(x))
    x = self._conv('conv2d2', self._conv('conv2d1', x))
    x = self._keep('localresponsenorm1', self._norm(x))
    x = self._pool('maxpool1', x)
    for block in self.BLOCKS:
      x = self._block(f'mixed{block}', x)
      if block in ('3b', '4e'):
        x = self._pool('maxpool4' if block == '3b' else 'maxpool10', x)
    x = torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)
    x = self.softmax2_pre_activation_matmul(self._keep('avgpool0', x))
    return self._keep('softmax2_pre_activation', x), {}


class LucentInceptionV1(Inception5h):
  """lucent's, with the response normalization that is written there."""

  def _norm(self, x):
    return F.local_response_norm(x, size=9, alpha=1e-4, beta=0.5, k=1)
