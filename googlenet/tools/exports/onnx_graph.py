"""A network as an ONNX graph, written row by row.

Nodes have the names of layers (`inception_3a/conv_3x3`), initializers those of
parameters (`inception_3a/conv_3x3/w`). Maps are [batch, C, H, W]. Padding is
explicit, so that a window lies where it lies in training.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from googlenet.errors import UserError
from googlenet.input import preprocess
from googlenet.kernels import batch_norm
from googlenet.kernels.padding import pads
from googlenet.model import rows
from googlenet.runtime import compilation
from googlenet.tools.inference.about import about
from googlenet.tools.inference.predict import ONE_VIEW
from googlenet.tools.inference.trained import Trained

# Of January 2024: the first with GELU; onnxruntime 1.17.
OPSET, IR_VERSION = 20, 9
_LARGEST = 2**31 - 2**20  # bytes of a protocol buffer
# (operator, attributes), or a function of the writer.
_ACTIVATIONS = {
  'relu': ('Relu', {}),
  'leaky_relu': ('LeakyRelu', {'alpha': 0.01}),
  'elu': ('Elu', {'alpha': 1.0}),
  'gelu': ('Gelu', {'approximate': 'tanh'}),
  'sigmoid': ('Sigmoid', {}),
  'tanh': ('Tanh', {}),
}


class _Value(NamedTuple):
  """A tensor of the graph."""

  name: str
  shape: tuple[int, ...]  # (H, W, C) of a map, (C,) of features


def export(net: Trained) -> bytes:
  """Returns the file: graph, parameters in float32, and what it tells.

  Raises:
    UserError: a layer cannot be written, a library is missing, or it becomes
      larger than such a file may be.
  """
  try:
    import onnx
  except ImportError as error:
    raise UserError('ONNX takes the package onnx: pip install onnx') from error
  writer = _Writer(net, onnx.helper.make_node, onnx.numpy_helper.from_array)
  with compilation.shown('network: written as a graph'):
    writer.write()
  if writer.num_bytes > _LARGEST:
    raise UserError(
      f'the parameters take {writer.num_bytes / 2**30:.1f} GiB, an ONNX file '
      'may hold 2: give another --format'
    )
  values = [
    onnx.helper.make_tensor_value_info(name, dtype, ['batch', *shape])
    for name, dtype, shape in (
      ('images', onnx.TensorProto.UINT8, net.stored_shape),
      ('logits', onnx.TensorProto.FLOAT, (net.network.num_classes,)),
      ('probabilities', onnx.TensorProto.FLOAT, (net.network.num_classes,)),
    )
  ]
  graph = onnx.helper.make_graph(
    writer.nodes,
    net.config.model.variant,
    values[:1],
    values[1:],
    writer.initializers,
  )
  model = onnx.helper.make_model(
    graph,
    opset_imports=[onnx.helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='googlenet-haiku',
  )
  told = about(net, ONE_VIEW)
  onnx.helper.set_model_props(
    model,
    {
      name: value if isinstance(value, str) else json.dumps(value)
      for name, value in told.items()
    },
  )
  onnx.checker.check_model(model)
  return model.SerializeToString()


class _Writer:
  """Turns rows into nodes."""

  def __init__(self, net: Trained, make_node: Any, make_tensor: Any):
    self._net, self._network = net, net.network
    self._params, self._state = jax.device_get((net.params, net.network_state))
    self._make_node, self._make_tensor = make_node, make_tensor
    self._names: set[str] = {'images', 'logits', 'probabilities'}
    self.nodes, self.initializers, self.num_bytes = [], [], 0

  def _unique(self, name: str) -> str:
    """Returns a name that no other node has: a branch may pool twice."""
    found, i = name, 1
    while found in self._names:
      i += 1
      found = f'{name}_{i}'
    self._names.add(found)
    return found

  def _node(
    self,
    kind: str,
    inputs: Sequence[str],
    name: str,
    output: str = '',
    **attributes: Any,
  ) -> str:
    name = self._unique(name)
    output = output or name
    self.nodes.append(
      self._make_node(kind, list(inputs), [output], name=name, **attributes)
    )
    return output

  def _constant(self, name: str, array: Any) -> str:
    array = np.ascontiguousarray(array)
    name = self._unique(name)
    self.num_bytes += array.nbytes
    self.initializers.append(self._make_tensor(array, name))
    return name

  def _float(self, name: str, value: Any) -> str:
    return self._constant(name, np.asarray(value, np.float32))

  def write(self) -> None:
    """Writes all of the network, up to `logits` and `probabilities`."""
    architecture = self._network.architecture
    x = self._preprocess()
    for stage in architecture.stages:
      for row in stage.rows:
        if isinstance(row, rows.ConvLayer):
          x = self._ops(row.name, row.convs, x)
        elif isinstance(row, rows.Block):
          x = self._block(row, x)
        else:
          x = self._ops(stage.name, (row,), x)
    x = self._ops('head', architecture.head, x)
    if architecture.has_logits:
      self._dense('logits', x, output='logits')
    else:
      self._node('Identity', [x.name], 'head/logits', output='logits')
    self._node('Softmax', ['logits'], 'softmax', 'probabilities', axis=-1)

  def _preprocess(self) -> _Value:
    """`preprocess.preprocess`, and from [B, H, W, C] to [B, C, H, W]."""
    data = self._net.config.data
    height, width, stored = self._net.stored_shape
    channels, size = self._net.image_shape[-1], data.image_size
    name = 'preprocess'
    x = self._node('Cast', ['images'], f'{name}/cast', to=1)  # to float32
    # One number after another, in the order of training: equal roundings.
    x = self._node('Div', [x, self._float(f'{name}/255', 255)], f'{name}/scale')
    if (stored, channels) == (1, 3):
      x = self._node('Concat', [x] * 3, f'{name}/to_colour', axis=3)
    elif (stored, channels) == (3, 1):
      luma = self._float(f'{name}/luma', np.reshape(preprocess.LUMA, (3, 1)))
      x = self._node('MatMul', [x, luma], f'{name}/to_grey')
    for kind, part, values in (
      ('Sub', 'mean', data.mean),
      ('Div', 'std', data.std),
    ):
      numbers = self._float(f'{name}/{part}/value', values)
      x = self._node(kind, [x, numbers], f'{name}/{part}')
    x = self._node('Transpose', [x], f'{name}/to_nchw', perm=[0, 3, 1, 2])
    # As two products of matrices, which mean in any runtime what
    # jax.image.resize does; those of Resize differ where it shrinks.
    if width != size:
      weights = self._float(f'{name}/resize_width/w', _resizing(width, size).T)
      x = self._node('MatMul', [x, weights], f'{name}/resize_width')
    if height != size:
      weights = self._float(f'{name}/resize_height/w', _resizing(height, size))
      x = self._node('MatMul', [weights, x], f'{name}/resize_height')
    return _Value(x, (size, size, channels))

  def _ops(self, path: str, ops: Sequence[Any], x: _Value) -> _Value:
    for op in ops:
      if isinstance(op, rows.Conv):
        x = self._conv(path, op, x)
      elif isinstance(op, rows.MaxPool):
        x = self._pool('MaxPool', f'{path}/max_pool', op, x)
      elif isinstance(op, rows.AvgPool):
        x = self._pool(
          'AveragePool',
          f'{path}/avg_pool',
          op,
          x,
          count_include_pad=int(op.count_padding),
        )
      elif isinstance(op, rows.LocalResponseNorm):
        name = self._node(
          'LRN',
          [x.name],
          f'{path}/lrn',
          size=op.size,
          alpha=op.alpha,
          beta=op.beta,
          bias=op.k,
        )
        x = x._replace(name=name)
      elif isinstance(op, rows.Fork):
        x = self._join(path, op.branches, x)
      elif isinstance(op, rows.Dropout):
        pass  # nothing outside of training
      elif isinstance(op, rows.GlobalMean):
        name = self._node('GlobalAveragePool', [x.name], f'{path}/mean')
        name = self._node('Flatten', [name], f'{path}/features', axis=1)
        x = _Value(name, x.shape[-1:])
      elif isinstance(op, rows.Flatten):
        # In the order of [H, W, C], as the weights that follow.
        name = self._node(
          'Transpose', [x.name], f'{path}/to_nhwc', perm=[0, 2, 3, 1]
        )
        name = self._node('Flatten', [name], f'{path}/flatten', axis=1)
        x = _Value(name, (int(np.prod(x.shape)),))
      elif isinstance(op, rows.Dense):
        x = self._activate(op.name, self._dense(op.name, x))
      else:
        raise UserError(
          f'the layer {path} cannot be written as ONNX: it has a '
          f'{type(op).__name__}; give another --format'
        )
    return x

  def _block(self, block: rows.Block, x: _Value) -> _Value:
    y = self._join(block.name, block.branches, x)
    if not block.residual:
      return y
    width, scale = block.residual[:2]  # the rest is of training
    linear = rows.Conv('linear', width, 1, is_linear=True)
    y = self._conv(block.name, linear, y)
    if x.shape[-1] != width:
      x = self._conv(block.name, linear._replace(name='shortcut'), x)
    factor = self._float(f'{block.name}/scale/value', scale)
    name = self._node('Mul', [y.name, factor], f'{block.name}/scale')
    name = self._node('Add', [x.name, name], f'{block.name}/add')
    return self._activate(block.name, y._replace(name=name))

  def _join(self, path: str, branches: Sequence[Any], x: _Value) -> _Value:
    outs = [self._ops(path, branch, x) for branch in branches]
    name = self._node(
      'Concat', [out.name for out in outs], f'{path}/concat', axis=1
    )
    channels = sum(out.shape[-1] for out in outs)
    return _Value(name, (*outs[0].shape[:2], channels))

  def _conv(self, path: str, row: rows.Conv, x: _Value) -> _Value:
    path = f'{path}/{row.name}'
    params, state = self._params[path], self._state.get(path)
    w = np.asarray(params['w'], np.float32).transpose(3, 2, 0, 1)
    inputs = [x.name, self._constant(f'{path}/w', w)]
    if state is None:
      inputs.append(self._float(f'{path}/b', params['b']))
    windows, shape = _windows(x, row.shape, row.stride, row.padding, row.width)
    name = self._node('Conv', inputs, path, **windows)
    if state is not None:
      arrays = {**params, **state}
      names = [
        self._float(f'{path}/{part}', arrays[part])
        for part in ('scale', 'offset', 'mean', 'variance')
      ]
      name = self._node(
        'BatchNormalization',
        [name, *names],
        f'{path}/batch_norm',
        epsilon=batch_norm.EPSILON,
      )
    out = _Value(name, shape)
    return out if row.is_linear else self._activate(path, out)

  def _pool(
    self,
    kind: str,
    name: str,
    row: rows.MaxPool | rows.AvgPool,
    x: _Value,
    **attributes: Any,
  ) -> _Value:
    windows, shape = _windows(
      x, (row.window,) * 2, row.stride, row.padding, x.shape[-1]
    )
    return _Value(
      self._node(kind, [x.name], name, **windows, **attributes), shape
    )

  def _dense(self, name: str, x: _Value, output: str = '') -> _Value:
    params = self._params[name]
    inputs = [
      self._float(f'{name}/w', params['w']),
      self._float(f'{name}/b', params['b']),
    ]
    node = f'head/{name}'
    out = self._node('Gemm', [x.name, *inputs], node, output=output)
    return _Value(out, (params['w'].shape[-1],))

  def _activate(self, path: str, x: _Value) -> _Value:
    kind = self._network.setting.activation
    name = f'{path}/{kind}'
    if kind == 'silu':
      gate = self._node('Sigmoid', [x.name], f'{path}/sigmoid')
      return x._replace(name=self._node('Mul', [x.name, gate], name))
    if kind not in _ACTIVATIONS:
      raise UserError(
        f'the layer {path} cannot be written as ONNX: it has the activation '
        f'{kind!r}; give another --format'
      )
    operator, attributes = _ACTIVATIONS[kind]
    return x._replace(name=self._node(operator, [x.name], name, **attributes))


def _windows(
  x: _Value,
  kernel: tuple[int, int],
  stride: int,
  padding: Any,
  channels: int,
) -> tuple[dict[str, Any], tuple[int, int, int]]:
  """Returns attributes of a convolution or pooling, and (H', W', channels)."""
  padded = pads(x.shape[:2], kernel, stride, padding)
  sides = [
    (size + low + high - window) // stride + 1
    for size, window, (low, high) in zip(
      x.shape[:2], kernel, padded, strict=True
    )
  ]
  (top, bottom), (left, right) = padded
  attributes = {
    'kernel_shape': list(kernel),
    'strides': [stride, stride],
    'pads': [top, left, bottom, right],
  }
  return attributes, (*sides, channels)


def _resizing(size: int, new_size: int) -> np.ndarray:
  """Returns the matrix [new_size, size] of a resize along one axis."""
  eye = np.eye(size, dtype=np.float32)
  return np.asarray(jax.image.resize(eye, (new_size, size), 'bilinear'))
