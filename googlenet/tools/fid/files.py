"""Files of statistics: `mu` and `sigma` in an .npz, as others have them.

pytorch-fid, clean-fid and the evaluator of OpenAI's guided-diffusion write and
read these two. `googlenet` holds what they were computed from, as JSON.
"""

import hashlib
import json
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from googlenet.errors import UserError
from googlenet.runtime.files import open_regular
from googlenet.tools.fid.images import headers
from googlenet.tools.fid.metrics import Statistics
from googlenet.tools.inference.outputs import written_aside
from googlenet.tools.inference.trained import Trained

_MEAN, _COVARIANCE, _ABOUT = 'mu', 'sigma', 'googlenet'
_MAX_FEATURES = 2**14  # whose covariance has 2 GiB


class About(NamedTuple):
  """How features were made; None: not known.

  Attributes:
    resize: a name in `resize.WAYS`; '': as the network was trained.
    end_point: the layer.
    weights: see `digest_of`.
  """

  resize: str | None = None
  end_point: str | None = None
  weights: str | None = None


def digest_of(net: Trained) -> str:
  """Returns the SHA-256 of the parameters of a network and its statistics."""
  found = hashlib.sha256()
  trees = jax.device_get((net.params, net.network_state))
  for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
    found.update(jax.tree_util.keystr(path).encode())
    found.update(np.ascontiguousarray(leaf))
  return found.hexdigest()


def is_statistics(source: str, flag: str) -> bool:
  """Whether a path names an .npz file that holds statistics.

  Raises:
    UserError: the file is damaged, or holds one of the two arrays.
  """
  if not source.endswith('.npz') or not os.path.isfile(source):
    return False
  found = {_MEAN, _COVARIANCE} & headers(source, flag).keys()
  if len(found) == 1:
    (missing,) = {_MEAN, _COVARIANCE} - found
    raise UserError(
      f'{flag}={source} holds {min(found)} without {missing}: statistics are '
      'both, a mean [d] and a covariance [d, d]'
    )
  return bool(found)


def read_statistics(
  path: str | os.PathLike[str], flag: str = '--images'
) -> tuple[Statistics, About]:
  """Reads a file of statistics.

  Args:
    path: an .npz file with `mu` [d] and `sigma` [d, d].
    flag: for error messages.

  Raises:
    UserError: there is no such file, it is damaged or holds something else.
  """
  path = os.fspath(path)
  if not is_statistics(path, flag):
    raise UserError(
      f'{flag}={path} is no file of statistics: allowed is an .npz with '
      f'{_MEAN} [d] and {_COVARIANCE} [d, d]'
    )
  known = headers(path, flag)
  shapes = known[_MEAN].shape, known[_COVARIANCE].shape
  kinds = {known[_MEAN].dtype.kind, known[_COVARIANCE].dtype.kind}
  size = shapes[0][0] if len(shapes[0]) == 1 else 0
  if (
    kinds != {'f'} or not 0 < size <= _MAX_FEATURES or shapes[1] != (size, size)
  ):
    raise UserError(
      f'{flag}={path}: {_MEAN} is {list(shapes[0])} and {_COVARIANCE} '
      f'{list(shapes[1])}; allowed are floats [d] and [d, d], d up to '
      f'{_MAX_FEATURES:,}'
    )
  try:
    with open_regular(path) as file, np.load(file) as arrays:
      mean, covariance = (
        np.asarray(arrays[name], np.float64) for name in (_MEAN, _COVARIANCE)
      )
      about = _about(str(arrays[_ABOUT])) if _ABOUT in known else {}
  except Exception as error:  # zipfile, zlib and NumPy raise a dozen types
    raise UserError(
      f'{flag}={path} is damaged ({error}): make it again'
    ) from error
  if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
    raise UserError(f'{flag}={path} holds NaN or infinity: make it again')
  count = about.get('images')
  found = Statistics(mean, covariance, count if type(count) is int else 0)
  texts = {k: about.get(k) for k in About._fields}
  return found, About(**{k: v for k, v in texts.items() if isinstance(v, str)})


def _about(text: str) -> dict[str, Any]:
  found = json.loads(text)
  return found if isinstance(found, dict) else {}


def write_statistics(
  path: str | os.PathLike[str], found: Statistics, about: About
) -> None:
  """Writes a file of statistics, which other programs read too.

  Args:
    path: of the new file; ends in .npz.
    found: what is written.
    about: how the features were made.

  Raises:
    OSError: the file cannot be written.
  """
  text = json.dumps({'images': found.count, **about._asdict()})
  arrays = {_MEAN: found.mean, _COVARIANCE: found.covariance}
  with written_aside(path) as file:
    np.savez(file, **arrays, **{_ABOUT: np.array(text)})


def check_same(found: About, here: About, path: str, flag: str) -> None:
  """Checks that statistics can be compared with features that are made here.

  What a file does not tell is not checked.

  Raises:
    UserError: they were made in another way, or by another network.
  """
  for name, what, remedy in (
    ('end_point', 'layer', 'give --end_points={}, or make it again'),
    ('resize', 'way to resize', 'give --resize={}, or make it again'),
    ('weights', 'network', 'give the --workdir that made it'),
  ):
    theirs, ours = getattr(found, name), getattr(here, name)
    if theirs is not None and theirs != ours:
      is_long = name == 'weights'
      words = '' if is_long else f' ({theirs!r} instead of {ours!r})'
      raise UserError(
        f'{flag}={path} was made with another {what}{words}: '
        + remedy.format(theirs)
      )
