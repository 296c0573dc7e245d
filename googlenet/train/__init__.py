"""Training runs: the train step, the loop with its hooks, evaluation, resume.

Also precise BN, fine-tuning, NaN diagnosis, profiles and layer times.

This package can be called: `googlenet.train(config, workdir)` is `train` below,
which users look for under that name.
"""

import os
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import ml_collections


def train(
  config: 'ml_collections.ConfigDict',
  workdir: str | os.PathLike[str],
  allow_config_change: bool = False,
) -> dict[str, Any]:
  """Trains the network of a config; continues the run in the workdir if any.

  On a terminal it shows progress bars; elsewhere, as in a notebook, lines. JAX
  keeps its compiled programs in `train.compilation_cache` from then on.

  Args:
    config: of `googlenet.get_config`, with changes.
    workdir: folder of the run, made if it is missing. `googlenet.load` reads
      it.
    allow_config_change: whether a run may be continued with another config
      (same network, data and seed).

  Returns:
    What result.json holds: 'step', 'eval/accuracy', 'eval/loss' and others.

  Raises:
    UserError: a field or the data is wrong (nothing was written), or a loss is
      not finite.
    Stopped: Ctrl-C or another signal; the same call continues the run.
    KeyboardInterrupt: Ctrl-C before the first step, or for the second time.
    WriteError: an output cannot be written; the run can be continued.
  """
  # Late: most imports of this package need none of these.
  from googlenet import config as config_lib
  from googlenet.runtime import machine, places
  from googlenet.train import loop

  workdir = places.usable(workdir, 'workdir')
  resolved = config_lib.resolve(config)
  if resolved.train.compilation_cache:
    machine.keep_programs(resolved.train.compilation_cache)
  return loop.train_and_evaluate(
    resolved, workdir, allow_config_change=allow_config_change
  )


class _Package(types.ModuleType):
  """The type of this package, so that it can be called."""

  def __call__(
    self,
    config: 'ml_collections.ConfigDict',
    workdir: str | os.PathLike[str],
    allow_config_change: bool = False,
  ) -> dict[str, Any]:
    """Calls `train`, which says what it does."""
    return train(config, workdir, allow_config_change)


sys.modules[__name__].__class__ = _Package
