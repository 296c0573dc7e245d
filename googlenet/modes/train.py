"""--mode=train: trains the network of a config into a workdir."""

import ml_collections

from googlenet import loop


def run(
  config: ml_collections.FrozenConfigDict,
  workdir: str,
  started: float,
  allow_config_change: bool = False,
) -> None:
  """Trains and evaluates; see `loop.train_and_evaluate`."""
  loop.train_and_evaluate(config, workdir, started, allow_config_change)
