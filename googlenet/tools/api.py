"""Functions of `import googlenet`, which imports this file late."""

import os

import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.data import auto, pipeline, sources
from googlenet.model import network as network_lib
from googlenet.model.network import Network
from googlenet.runtime import places
from googlenet.tools.inference import load
from googlenet.tools.inference.trained import Trained
from googlenet.tools.scoring import predictions, scores
from googlenet.tools.scoring.scores import Scores


def get_config(
  name: str | os.PathLike[str] = 'fmnist96',
) -> ml_collections.ConfigDict:
  """Returns a config, whose fields can be changed.

  Args:
    name: of a file in configs/, like 'fmnist96' (the default of every field);
      or the path of a config file or of the config.json of a run.

  Raises:
    UserError: there is no such file, or it is broken.
  """
  return command_line.load_config_file(places.usable(name, 'config'))


def evaluate(
  run: str | os.PathLike[str] | Trained,
  split: str = '',
  data_dir: str | os.PathLike[str] = '',
) -> Scores:
  """Scores a trained network, as --mode=evaluate does.

  Args:
    run: what `load` takes, or what it returns.
    split: of the run's data set, like 'test[:1000]'; '': `data.eval_split` of
      its config.
    data_dir: of a run on your own images: their folder or file, which a run
      does not name.

  Raises:
    UserError: there is no such run, or the data cannot be read.
  """
  net = run if isinstance(run, Trained) else load(run)
  config = ml_collections.ConfigDict(net.config.to_dict())
  if split:
    config.data.eval_split = split
  if data_dir:
    config.data.data_dir = os.fspath(data_dir)
  resolved = config_lib.resolve(config)
  net = predictions.with_statistics(net._replace(config=resolved))
  found = predictions.predict_split(resolved, [net])
  return scores.compute(found.probabilities, found.labels)


def make_network(config: ml_collections.ConfigDict) -> Network:
  """Makes the network of a config: two pure functions, `init` and `apply`.

  Args:
    config: of `get_config`, with changes. Where `model.num_classes` is 0 it is
      the number of classes of the data set.

  Raises:
    UserError: a field is wrong, or the data set is needed and cannot be read.
  """
  return network_lib.from_config(_complete(config))


def read_split(
  config: ml_collections.ConfigDict, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a part of a data set into memory.

  Args:
    config: the `data` section says which set.
    split: 'train', 'test[:1000]', ...; see docs/use.md, "Other data".

  Returns:
    Images uint8 [N, H, W, C] as they are stored, and labels int32 [N].
    `preprocess(images, config.data)` turns images into the network's input.

  Raises:
    UserError: the data cannot be read or does not fit the config.
  """
  config_lib.check_fields(config)
  changed = ml_collections.ConfigDict(config.to_dict())
  changed.data.eval_split = split
  dataset = pipeline.load_split(_complete(changed), 'eval_split')
  return sources.read_all(dataset)


def _complete(
  config: ml_collections.ConfigDict,
) -> ml_collections.FrozenConfigDict:
  """Checks a config, and fills in what its data set decides."""
  return auto.complete(config_lib.resolve(config))
