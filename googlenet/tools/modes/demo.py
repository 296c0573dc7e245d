"""--mode=demo: serves a local web page to try a run."""

import errno
import functools
import importlib.util
import os
import socket
import time

import jax
import ml_collections
import numpy as np

from googlenet.data.sources import Dataset
from googlenet.errors import UserError
from googlenet.runtime.terminal import warn
from googlenet.tools.demo import answer, attribution
from googlenet.tools.demo.likes import Likes
from googlenet.tools.inference import outputs, predict, trained
from googlenet.tools.scoring import predictions

_NUM_EXAMPLES = 8
_REQUIRED = ('starlette', 'uvicorn')


def run(
  config: ml_collections.FrozenConfigDict,
  workdir: str,
  started: float,
  port: int,
  views: bool = True,
) -> None:
  """Serves the page until Ctrl-C.

  Args:
    config: of the run; its `data` section may differ.
    workdir: of a trained run; nothing is written there.
    started: `time.monotonic()` at the start of the program.
    port: of the page at 127.0.0.1; 0: any free port.
    views: whether to average probabilities over the views of evaluation.

  Raises:
    UserError: a library is missing, the port is not available, or the folder
      holds no run.
  """
  outputs.check_one_process('demo', jax.process_count())
  missing = [name for name in _REQUIRED if not importlib.util.find_spec(name)]
  if missing:
    raise UserError(
      f'--mode=demo needs {" and ".join(missing)}: pip install '
      f'{" ".join(missing)}'
    )
  from googlenet.tools.demo import server

  with listen(server.HOST, port) as listener:
    member = trained.load_run(workdir, config)
    chosen = predict.views_of(config.eval, views)
    if chosen.crops > 1:
      warn(f'the page computes each picture once, not in {chosen.crops} crops')
      chosen = predict.ONE_VIEW
    predict.tell_cost(chosen, '--views=false')
    read = member.reader()
    # Compiles the program, so that the first picture need not wait for it.
    answer.answer(member, np.zeros(read.shape, np.uint8), chosen)
    dataset = load_images(config, member)
    likes = Likes(member, dataset) if dataset else None
    methods = attribution.describe(member)
    app = server.make_app(
      answer.describe(member) | {'methods': methods},
      examples_of(dataset, member) if dataset else [],
      read,
      lambda image: answer.answer(member, image, chosen),
      server.More(
        likes,
        likes.channels if likes else {},
        functools.partial(attribution.attribute, member),
        attribution.names(member),
        member.network.num_classes,
      ),
    )
    print(f'{member.path}: step {member.step:,}')
    print(
      f'open http://{server.HOST}:{listener.getsockname()[1]} in a browser '
      f'(ready after {time.monotonic() - started:.1f} s); Ctrl-C ends it',
      flush=True,
    )
    try:
      server.serve(app, listener)
    except KeyboardInterrupt:
      print('ended', flush=True)


def listen(host: str, port: int) -> socket.socket:
  """Returns a socket that listens on a port.

  Raises:
    UserError: the port is not available.
  """
  if not 0 <= port <= 65535:
    raise UserError(
      f'--port={port} is no port: allowed is a whole number from 1 to 65535, '
      'or 0 for any free port'
    )
  listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
  # Otherwise the port stays unavailable for a minute after the demo has ended.
  # On Windows it does not, and this would let two programs share a port.
  if os.name != 'nt':
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listener.bind((host, port))
    listener.listen()
  except OSError as error:
    listener.close()
    why = {
      errno.EADDRINUSE: 'is in use by another program',
      errno.EACCES: 'may not be used by this user',
    }.get(error.errno, f'cannot be used ({error.strerror})')
    raise UserError(
      f'--port={port} {why}: give another, or --port=0 for any free port'
    ) from error
  return listener


def load_images(
  config: ml_collections.FrozenConfigDict, member: trained.Trained
) -> Dataset | None:
  """Returns `data.eval_split`, or None if it cannot be read.

  The demo works without test images: users bring their own.
  """
  try:
    return predictions.load_split(config, member)
  except UserError as error:
    warn(f'no examples on the page: {error}')
    return None


def examples_of(
  dataset: Dataset, member: trained.Trained
) -> list[tuple[bytes, str]]:
  """Returns the first images of a split: PNG and true class."""
  count = min(_NUM_EXAMPLES, dataset.num_examples)
  try:
    images, labels = dataset.read(np.arange(count))
  except UserError as error:
    warn(f'no examples on the page: {error}')
    return []
  return [
    (answer.encode(image), member.class_names[label])
    for image, label in zip(images, labels, strict=True)
  ]
