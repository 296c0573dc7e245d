"""What follows the maps: the classifier, and the auxiliary ones.

Fully connected layers have `w` [C_in, C_out] and `b` [C_out].
"""

from collections.abc import Sequence

import chex
import haiku as hk
import jax

from googlenet.model import regularization, rows
from googlenet.model.context import Setting
from googlenet.model.initializers import INITIALIZERS, LOGITS, Scheme, of_haiku
from googlenet.model.modules import apply_ops


def dense(
  name: str, width: int, x: jax.Array, scheme: Scheme = LOGITS
) -> jax.Array:
  """A fully connected layer: [B, C] -> [B, width]."""
  b_init = hk.initializers.Constant(scheme.bias)
  return hk.Linear(width, w_init=of_haiku(scheme), b_init=b_init, name=name)(x)


def apply_head(
  ops: Sequence[rows.HeadOp], x: jax.Array, place: int, setting: Setting
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Applies what follows the maps.

  Args:
    ops: of a head.
    x: a map in the layout of the kernels.
    place: of the head in the network, for its dropout.
    setting: of the network.

  Returns:
    Features [B, C] (without a fully connected layer to the classes), and what
    came out of each named layer.
  """
  kernels, named = setting.kernels, {}
  for i, op in enumerate(ops):
    if isinstance(op, rows.GlobalMean):
      x = kernels.global_mean(x)
    elif isinstance(op, rows.Flatten):
      x = kernels.leave(x)
      x = x.reshape(x.shape[0], -1)
    elif isinstance(op, rows.Dense):
      scheme = INITIALIZERS[setting.initializer]
      x = setting.activate(dense(op.name, op.width, x, scheme))
      named[op.name] = x
    elif isinstance(op, rows.Dropout):
      x = regularization.dropout(x, op.rate, 100 * (place + 1) + i, setting)
    else:
      x = apply_ops((op,), x, setting)
  chex.assert_rank(x, 2)
  return x, named


class AuxHead(hk.Module):
  """A classifier on an earlier row: its logits."""

  def __init__(self, row: rows.AuxHead, place: int, setting: Setting):
    super().__init__(name=row.name)
    self._row, self._place, self._setting = row, place, setting

  def __call__(self, x: jax.Array, num_classes: int) -> jax.Array:
    features, _ = apply_head(self._row.ops, x, self._place, self._setting)
    return dense('logits', num_classes, features)
