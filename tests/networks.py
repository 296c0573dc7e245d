"""Every network at a small size, for tests."""

import jax
import numpy as np
import pytest
from conftest import ROOT, load_config

from googlenet import kernels as kernels_lib
from googlenet.model import network as network_lib
from googlenet.model import variants
from googlenet.model.initialization import init_from_numpy

# A size at which every window of the network fits, not far above the smallest.
SMALL = {
  'plain': 33,
  'paper': 96,
  'torchvision': 48,
  'bn': 33,
  'inception_v2': 33,
  'factorized': 33,
  'residual': 33,
  'se': 33,
  'inception_v3': 76,
  'inception_fid': 76,
  'inception5h': 65,
  'inception5h_lucent': 65,
  'fmnist28': 28,
  'fmnist28_3x3': 16,
  'tiny': 28,
  'alexnet': 63,
  'alexnet_torchvision': 63,
  'vgg16': 32,
  'nin': 67,
}
# Options of XLA: these tests ask for values, not for speed.
FAST_TO_COMPILE = (
  ('xla_backend_optimization_level', 0),
  ('xla_llvm_disable_expensive_passes', True),
)
XLA = kernels_lib.KERNELS['xla']
VARIANTS = pytest.mark.parametrize('variant', variants.ARCHITECTURES)


def model_config(**changes):
  config = load_config(ROOT / 'configs/fmnist96.py').model.unlock()
  config.update({'kernels': 'xla', **changes})
  return config


def small_config(variant, **changes):
  """At the size in `SMALL`, which is too small for the heads of some."""
  aux_heads = 'off' if variant == 'inception_v3' else 'auto'
  return model_config(variant=variant, aux_heads=aux_heads, **changes)


def make(image_shape, **changes):
  """Returns a network, its parameters and its state."""
  network = network_lib.make_network(model_config(**changes))
  return network, *init_from_numpy(network, image_shape, 0)


def images(*shape):
  return np.random.default_rng(0).standard_normal(shape, np.float32)


def keys(count):
  return jax.random.split(jax.random.key(1), count)
