"""--mode=evaluate: scores the saved parameters of a workdir."""

import math

import jax
import ml_collections

from googlenet import checkpoint, loop
from googlenet import train_step as step_lib
from googlenet.errors import UserError
from googlenet.evaluation import evaluate
from googlenet.initialization import abstract_init


def run(
  config: ml_collections.FrozenConfigDict, workdir: str, started: float
) -> None:
  """Prints loss, top-1 and top-5 accuracy on `data.eval_split`.

  Args:
    config: of the run; its `data` and `eval` sections may differ.
    workdir: of a trained run; nothing is written there.
    started: unused.

  Raises:
    UserError: no checkpoint, a damaged one, or one of another network.
  """
  del started
  dataset = loop.load_split(config, 'eval_split')
  network = loop.make_network(config)
  params, network_state = abstract_init(
    network, loop.image_shape(config, dataset)
  )
  use_ema = bool(config.train.ema_decay)
  path, restored = checkpoint.newest_whole(
    workdir,
    lambda path: checkpoint.restore(path, params, network_state, use_ema),
    loop.warn,
  )
  scores = evaluate(
    step_lib.make_eval_step(network, config),
    step_lib.replicated(restored.params),
    step_lib.replicated(restored.network_state),
    loop.make_feed(config, dataset),
    config.eval.batch_size,
  )
  if not math.isfinite(scores['loss']):
    raise UserError(f'{path}: the loss of these parameters is {scores["loss"]}')
  if jax.process_index():
    return
  print(f'{path}: step {restored.step:,}')
  print(
    f'{dataset.name} {dataset.split}: accuracy {scores["accuracy"]:.4f}, '
    f'top-5 {scores["top_5"]:.4f}, loss {scores["loss"]:.4f} on '
    f'{scores["count"]:,} images'
  )
