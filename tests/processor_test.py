"""On a processor without instructions for bfloat16, oneDNN multiplies float32.

XLA would hand it bfloat16 all the same (JAX 0.12.0), and oneDNN would compute
matrix products in a plain loop: no training step within eight minutes.
"""

import collections
import pathlib
import re

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import networks
import pytest

from googlenet.kernels import onednn, processor
from googlenet.model import own, rows
from googlenet.model.architecture_text import to_text
from googlenet.runtime.compilation import compile_with

CASCADE_LAKE = {'avx512f', 'avx512bw', 'avx512_vnni'}
ZEN_4 = CASCADE_LAKE | {'avx512_bf16'}
SAPPHIRE_RAPIDS = ZEN_4 | {'amx_bf16', 'amx_tile', 'avx512_fp16'}


@pytest.mark.parametrize(
  ('features', 'dtype', 'expected'),
  [
    (CASCADE_LAKE, 'bfloat16', 'float32'),
    (CASCADE_LAKE, 'float16', 'float32'),
    (ZEN_4, 'bfloat16', 'bfloat16'),
    (ZEN_4, 'float16', 'float32'),
    (SAPPHIRE_RAPIDS, 'bfloat16', 'bfloat16'),
    (SAPPHIRE_RAPIDS, 'float16', 'float16'),
    (set(), 'float32', 'float32'),
    (set(), 'float64', 'float64'),
  ],
)
def test_products_are_float32_where_there_is_no_instruction(
  monkeypatch, features, dtype, expected
):
  monkeypatch.setattr(processor, 'features', lambda: frozenset(features))
  assert processor.product_dtype(dtype) == expected
  assert processor.has_amx() == (features == SAPPHIRE_RAPIDS)


@pytest.mark.parametrize(
  ('text', 'known'),
  [
    ('cores\t: 2\nflags\t\t: fpu avx512f amx_bf16\n\n', True),
    ('flags\t\t: fpu avx512f avx512_bf16_soon\n', False),
    (None, False),
  ],
)
def test_features_are_those_that_linux_tells(monkeypatch, text, known):
  def read(path, encoding):
    assert str(path) == '/proc/cpuinfo'
    if text is None:
      raise FileNotFoundError(path)
    return text

  monkeypatch.setattr(pathlib.Path, 'read_text', read)
  found = processor.features.__wrapped__()
  assert ('amx_bf16' in found) == known
  assert 'avx512_bf16' not in found


@pytest.mark.skipif(
  not onednn.is_available(jnp.float32), reason='XLA does not call oneDNN'
)
def test_no_call_of_onednn_gets_bfloat16_without_instructions(monkeypatch):
  monkeypatch.setattr(processor, 'features', lambda: frozenset(CASCADE_LAKE))

  def mix(x, is_training):
    assert hk.get_parameter('w', [2], x.dtype, jnp.ones).dtype == x.dtype
    return hk.Linear(256)(hk.Conv2D(256, 3)(x))

  own.register('mix', mix)
  conv = rows.ConvLayer('conv_1', (rows.Conv('conv_3x3', 256, 3),))
  stage = rows.Stage('stage_1', (conv, rows.Own('mixed', 'mix')))
  # So many classes that XLA gives the classifier to oneDNN as well.
  network, params, state = networks.make(
    (8, 8, 16),
    variant='own',
    architecture=to_text(rows.Architecture((stage,))),
    num_classes=10_000,
    kernels='onednn',
  )
  images = jnp.zeros((64, 8, 8, 16), jnp.bfloat16)

  def loss(params, images):
    out, _ = network.apply(params, state, None, images, is_training=True)
    chex.assert_type(out.logits, jnp.bfloat16)
    return jnp.sum(out.logits.astype(jnp.float32))

  narrow = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
  lowered = jax.jit(jax.grad(loss)).lower(narrow, images)
  options = (*onednn.COMPILER_OPTIONS, *networks.FAST_TO_COMPILE)
  text = compile_with(options, lowered).as_text()
  calls = re.findall(r'= \(?(\w+)\[.*__onednn\$(\w+)"', text)
  kinds = collections.Counter(kind for _, kind in calls)
  # Forward and backward.
  assert kinds['convolution'] >= 3
  assert kinds['matmul'] >= 6
  assert {dtype for dtype, _ in calls} == {'f32'}
