"""GoogLeNet and its family in Haiku on JAX.

  config = googlenet.get_config('fmnist96')      # of configs/, or a path
  config.train.epochs = 2
  googlenet.train(config, 'runs/trial')          # or continues that run
  scores = googlenet.evaluate('runs/trial')      # accuracy, confusion, ...
  net = googlenet.load('runs/trial')             # or 'fmnist28_best', ...
  probabilities = net.predict(net.read(['photo.jpg']))

For a training loop of your own:

  network = googlenet.make_network(config)       # pure functions init, apply
  images, labels = googlenet.read_split(config, 'train')
  x = googlenet.preprocess(images[:100], config.data)
  params, network_state = googlenet.init_from_numpy(network, x.shape[1:], 0)

Mistakes in what you give raise `googlenet.UserError`, with one line that says
what is wrong and what is allowed. Everything else in the package may change
from version to version.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = '0.1.0'
__all__ = [
  'Network',
  'Scores',
  'Trained',
  'UserError',
  'evaluate',
  'get_config',
  'init_from_numpy',
  'load',
  'make_network',
  'preprocess',
  'read_split',
  'train',
]

# Where each name is, to be imported when it is asked for: otherwise importing
# any part of the package would import JAX.
_PLACES = {
  'Network': 'googlenet.model.network',
  'Scores': 'googlenet.tools.scoring.scores',
  'Trained': 'googlenet.tools.inference.trained',
  'UserError': 'googlenet.errors',
  'evaluate': 'googlenet.tools.api',
  'get_config': 'googlenet.tools.api',
  'init_from_numpy': 'googlenet.model.initialization',
  'load': 'googlenet.tools.inference',
  'make_network': 'googlenet.tools.api',
  'preprocess': 'googlenet.input.preprocess',
  'read_split': 'googlenet.tools.api',
}


def __dir__() -> list[str]:  # for help() and completion
  return [*globals(), *__all__]


if TYPE_CHECKING:
  from googlenet.errors import UserError
  from googlenet.input.preprocess import preprocess
  from googlenet.model.initialization import init_from_numpy
  from googlenet.model.network import Network
  from googlenet.tools.api import (
    evaluate,
    get_config,
    make_network,
    read_split,
  )
  from googlenet.tools.inference import load
  from googlenet.tools.inference.trained import Trained
  from googlenet.tools.scoring.scores import Scores
  from googlenet.train import train
else:

  def __getattr__(name: str):
    if name == 'train':  # a package that can be called
      return importlib.import_module('googlenet.train')
    if name in _PLACES:
      return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
