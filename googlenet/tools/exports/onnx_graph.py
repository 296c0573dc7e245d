"""Exports a network as an ONNX graph, written layer by layer.

Nodes are named after layers (`inception_3a/conv_3x3`), initializers after
parameters (`inception_3a/conv_3x3/w`). Maps are [batch, C, H, W]. Padding is
explicit, so that windows have the same position as in training.

No converter is used: they need TensorFlow, or start from a traced program, in
which layers have no names.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from googlenet.errors import UserError
from googlenet.input import preprocess
from googlenet.kernels import batch_norm
from googlenet.kernels.padding import pads
from googlenet.model import graph
from googlenet.runtime import progress
from googlenet.tools.inference.about import about
from googlenet.tools.inference.predict import ONE_VIEW
from googlenet.tools.inference.trained import Trained

# The first opset with GELU (January 2024, onnxruntime 1.17).
OPSET, IR_VERSION = 20, 9
_LARGEST = 2**31 - 2**20  # bytes; a protocol buffer holds less than 2 GiB
# Operator and attributes; silu is not here as it takes two nodes.
_ACTIVATIONS = {
  'relu': ('Relu', {}),
  'leaky_relu': ('LeakyRelu', {'alpha': 0.01}),
  'elu': ('Elu', {'alpha': 1.0}),
  'gelu': ('Gelu', {'approximate': 'tanh'}),
  'sigmoid': ('Sigmoid', {}),
  'tanh': ('Tanh', {}),
}


def export(net: Trained) -> bytes:
  """Returns an ONNX file: graph, parameters in float32, and metadata.

  Raises:
    UserError: ONNX has no operator for a layer, the package onnx is missing, or
      the file would be larger than 2 GiB.
  """
  try:
    import onnx
  except ImportError as error:
    raise UserError('ONNX needs the package onnx: pip install onnx') from error
  writer = _Writer(net, onnx.helper.make_node, onnx.numpy_helper.from_array)
  with progress.working('compile  network: written as a graph'):
    writer.write()
  if writer.num_bytes > _LARGEST:
    raise UserError(
      f'the parameters take {writer.num_bytes / 2**30:.1f} GiB, but an ONNX '
      'file holds at most 2 GiB: give another --format'
    )
  values = [
    onnx.helper.make_tensor_value_info(name, dtype, ['batch', *shape])
    for name, dtype, shape in (
      ('images', onnx.TensorProto.UINT8, net.stored_shape),
      ('logits', onnx.TensorProto.FLOAT, (net.network.num_classes,)),
      ('probabilities', onnx.TensorProto.FLOAT, (net.network.num_classes,)),
    )
  ]
  onnx_graph = onnx.helper.make_graph(
    writer.nodes,
    net.config.model.variant,
    values[:1],
    values[1:],
    writer.initializers,
  )
  model = onnx.helper.make_model(
    onnx_graph,
    opset_imports=[onnx.helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='googlenet-haiku',
  )
  onnx.helper.set_model_props(
    model,
    {
      name: value if isinstance(value, str) else json.dumps(value)
      for name, value in about(net, ONE_VIEW).items()
    },
  )
  onnx.checker.check_model(model)
  return model.SerializeToString()


class _Writer:
  """Translates layers to ONNX nodes."""

  def __init__(self, net: Trained, make_node: Any, make_tensor: Any):
    self._net, self._network = net, net.network
    self._params, self._state = jax.device_get((net.params, net.network_state))
    self._make_node, self._make_tensor = make_node, make_tensor
    self.nodes, self.initializers, self.num_bytes = [], [], 0
    # Functions (layer, input names) -> output name, by kind of layer.
    self._forms: dict[str, Callable[[graph.Layer, list[str]], str]] = {
      'conv': self._conv,
      'dense': self._dense,
      'max_pool': self._pool,
      'avg_pool': self._pool,
      'local_response_norm': self._lrn,
      'global_mean': self._global_mean,
      'flatten': self._flatten,
      'dropout': lambda layer, xs: xs[0],
      'concat': lambda layer, xs: self._node('Concat', xs, layer.name, axis=1),
      'add': lambda layer, xs: self._node('Add', xs, layer.name),
      'multiply': self._multiply,
      'activation': lambda layer, xs: self._activate(
        layer.name, xs[0], layer.op.function
      ),
    }

  def _node(
    self,
    operator: str,
    inputs: Sequence[str],
    name: str,
    output: str = '',
    **attributes: Any,
  ) -> str:
    output = output or name
    self.nodes.append(
      self._make_node(operator, list(inputs), [output], name=name, **attributes)
    )
    return output

  def _constant(self, name: str, array: np.ndarray) -> str:
    self.num_bytes += array.nbytes
    self.initializers.append(self._make_tensor(array, name))
    return name

  def _float(self, name: str, value: Any) -> str:
    array = np.ascontiguousarray(np.asarray(value, np.float32))
    return self._constant(name, array)

  def write(self) -> None:
    """Writes the whole network, from `images` to `probabilities`.

    Raises:
      UserError: ONNX has no operator for a layer or for the activation.
    """
    architecture = self._network.architecture
    tensors = {graph.IMAGES: self._preprocess()}
    for layer in graph.graph(architecture, self._net.image_shape):
      if layer.is_side:
        continue
      if layer.kind not in self._forms:
        raise UserError(
          f'the layer {layer.name} cannot be written as ONNX: it is an '
          f'operation {type(layer.op).__name__}; give another --format'
        )
      inputs = [tensors[name] for name in layer.inputs]
      x = tensors[layer.name] = self._forms[layer.kind](layer, inputs)
    if x != 'logits':  # no fully connected layer ends the network
      self._node('Identity', [x], 'head/logits', 'logits')
    self._node('Softmax', ['logits'], 'softmax', 'probabilities', axis=-1)

  def _preprocess(self) -> str:
    """Writes `preprocess.preprocess` and a transpose to [B, C, H, W]."""
    data = self._net.config.data
    height, width, stored = self._net.stored_shape
    channels, size = self._net.image_shape[-1], data.image_size
    name = 'preprocess'
    x = self._node('Cast', ['images'], f'{name}/cast', to=1)  # to float32
    # The same order of operations as in training, for the same rounding.
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
    # Resizing is written as two matrix products, which equal jax.image.resize
    # in every runtime. The operator Resize differs where it shrinks.
    if width != size:
      weights = self._float(f'{name}/resize_width/w', _resizing(width, size).T)
      x = self._node('MatMul', [x, weights], f'{name}/resize_width')
    if height != size:
      weights = self._float(f'{name}/resize_height/w', _resizing(height, size))
      x = self._node('MatMul', [weights, x], f'{name}/resize_height')
    return x

  def _conv(self, layer: graph.Layer, inputs: list[str]) -> str:
    path, op = layer.name, layer.op
    params, state = self._params[path], self._state.get(path)
    w = self._float(f'{path}/w', params['w'].transpose(3, 2, 0, 1))
    inputs = [*inputs, w]
    if state is None:
      inputs.append(self._float(f'{path}/b', params['b']))
    x = self._node('Conv', inputs, path, **_windows(layer, op.shape))
    if state is not None:
      arrays = {**params, **state}
      names = [
        self._float(f'{path}/{part}', arrays[part])
        for part in ('scale', 'offset', 'mean', 'variance')
      ]
      x = self._node(
        'BatchNormalization',
        [x, *names],
        f'{path}/batch_norm',
        epsilon=batch_norm.EPSILON,
      )
    return x if op.is_linear else self._activate(path, x)

  def _dense(self, layer: graph.Layer, inputs: list[str]) -> str:
    name, op = layer.name, layer.op
    for part in ('w', 'b'):
      array = self._params[name][part]
      inputs = [*inputs, self._float(f'{name}/{part}', array)]
    node = name if '/' in name else f'head/{name}'
    x = self._node('Gemm', inputs, node, 'logits' if name == 'logits' else '')
    return x if op.is_linear else self._activate(name, x)

  def _pool(self, layer: graph.Layer, inputs: list[str]) -> str:
    op, attributes = layer.op, _windows(layer, (layer.op.window,) * 2)
    if layer.kind == 'max_pool':
      return self._node('MaxPool', inputs, layer.name, **attributes)
    attributes['count_include_pad'] = int(op.count_padding)
    return self._node('AveragePool', inputs, layer.name, **attributes)

  def _lrn(self, layer: graph.Layer, inputs: list[str]) -> str:
    size, alpha, beta, k = layer.op
    numbers = {'size': size, 'alpha': alpha, 'beta': beta, 'bias': k}
    return self._node('LRN', inputs, layer.name, **numbers)

  def _global_mean(self, layer: graph.Layer, inputs: list[str]) -> str:
    x = self._node('GlobalAveragePool', inputs, layer.name)
    return self._node('Flatten', [x], f'{layer.name}/features', axis=1)

  def _flatten(self, layer: graph.Layer, inputs: list[str]) -> str:
    # The following weights expect the order [H, W, C].
    name = f'{layer.name}/to_nhwc'
    x = self._node('Transpose', inputs, name, perm=[0, 2, 3, 1])
    return self._node('Flatten', [x], layer.name, axis=1)

  def _multiply(self, layer: graph.Layer, inputs: list[str]) -> str:
    x, *others = inputs
    if others:  # the second input has one value for each channel
      axes = self._constant(f'{layer.name}/axes', np.array([2, 3]))
      y = self._node('Unsqueeze', [*others, axes], f'{layer.name}/unsqueeze')
    else:
      y = self._float(f'{layer.name}/factor', layer.op.factor)
    return self._node('Mul', [x, y], layer.name)

  def _activate(self, path: str, x: str, kind: str = '') -> str:
    kind = kind or self._network.context.activation
    if kind == 'silu':
      gate = self._node('Sigmoid', [x], f'{path}/sigmoid')
      return self._node('Mul', [x, gate], f'{path}/silu')
    if kind not in _ACTIVATIONS:
      raise UserError(
        f'the layer {path} cannot be written as ONNX: it has the activation '
        f'{kind!r}; give another --format'
      )
    operator, attributes = _ACTIVATIONS[kind]
    return self._node(operator, [x], f'{path}/{kind}', **attributes)


def _windows(layer: graph.Layer, kernel: tuple[int, int]) -> dict[str, Any]:
  """Returns the attributes of a convolution or pooling."""
  sides, stride = layer.input_shape[:2], layer.op.stride
  padded = pads(sides, kernel, stride, layer.op.padding)
  (top, bottom), (left, right) = padded
  return {
    'kernel_shape': list(kernel),
    'strides': [stride, stride],
    'pads': [top, left, bottom, right],
  }


def _resizing(size: int, new_size: int) -> np.ndarray:
  """Returns the matrix [new_size, size] of a resize along one axis."""
  eye = np.eye(size, dtype=np.float32)
  return np.asarray(jax.image.resize(eye, (new_size, size), 'bilinear'))
