"""The precision of a network: short names for policies of jmp."""

from typing import Any

import jmp
import numpy as np

# Dtypes of computation. Parameters and outputs are float32 with each; jmp's own
# 'bfloat16' would mean parameters and outputs too.
NAMES = 'float32', 'bfloat16', 'float16'


def get_policy(precision: str) -> jmp.Policy:
  """Returns the policy of `train.precision`, one of `NAMES` or as jmp has it.

  Raises:
    ValueError, TypeError: it is neither.
  """
  if precision in NAMES:
    precision = f'params=float32,compute={precision},output=float32'
  return jmp.get_policy(precision)


def name_of(precision: Any) -> Any:
  """Returns the one of `NAMES` that means the same, or the value itself."""
  try:
    policy = get_policy(precision)
  except Exception:  # jmp raises errors of many types
    return precision
  dtypes = policy.param_dtype, policy.compute_dtype, policy.output_dtype
  params, compute, output = (np.dtype(dtype).name for dtype in dtypes)
  is_named = params == output == 'float32' and compute in NAMES
  return compute if is_named else precision
