"""Networks by name: downloads them once, checks them, keeps them in the cache.

'torchvision/googlenet' are the published weights of torchvision, imported as a
run, 'pytorch-fid/inception' those of the Inception network of FID.
'hf:OWNER/NAME' is a run that `googlenet.tools.publish` has written and its
owner has uploaded to Hugging Face. Nothing that is downloaded is run; config
and checkpoints of a run are read like those of any run that one receives.
"""

import contextlib
import hashlib
import http.client
import math
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from googlenet import config as config_lib
from googlenet.errors import UserError, did_you_mean, is_full, writing
from googlenet.io import named
from googlenet.runtime import progress
from googlenet.runtime.files import open_new, open_regular, read_text
from googlenet.runtime.terminal import tell

TORCHVISION_URL = 'https://download.pytorch.org/models'
FID_URL = (
  'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights'
)
_HUGGING_FACE = 'https://huggingface.co'
_SUMS = 'SHA256SUMS'
# Files of a published run that are fetched; its README.md is for people.
_OF_A_RUN = re.compile(
  r'config\.json|classes\.txt|metrics\.jsonl|result\.json'
  r'|checkpoints/step_\d{9,12}\.npz',
  re.ASCII,
)
_MAX_TEXT = 2**20  # bytes of SHA256SUMS
_MAX_FILE = 2**31  # bytes of any other file
_CHUNK = 2**20
_ASIDE = '.new-'  # how the names of unfinished folders begin
_SHOWN_MIB = 8  # size from which on the download is shown
_LEFT_SECONDS = 86_400  # after which what is aside is of no live process
_SECONDS = 30  # of silence after which a connection is given up


class Weights(NamedTuple):
  """A published weight file.

  Attributes:
    variant: the value of `config.model.variant` that it is for.
    file: its name, which ends in the first 8 digits of its SHA-256.
    preset: the value of --preset.
    digest: its SHA-256; '': only those digits are published.
  """

  variant: str
  file: str
  preset: str = 'torchvision'
  digest: str = ''

  @property
  def url(self) -> str:
    """Where it is downloaded."""
    folder = TORCHVISION_URL if self.preset == 'torchvision' else FID_URL
    return f'{folder}/{self.file}'

  @property
  def checked(self) -> str:
    """The digits with which its SHA-256 must begin."""
    in_name = self.file.rpartition('-')[2].partition('.')[0]
    return self.digest or in_name


FID = 'pytorch-fid/inception'
# As in torchvision/models: `Weights.url` of IMAGENET1K_V1; `FID_WEIGHTS_URL` of
# pytorch_fid/inception.py.
PUBLISHED = {
  'torchvision/googlenet': Weights('torchvision', 'googlenet-1378be20.pth'),
  'torchvision/inception_v3': Weights(
    'inception_v3', 'inception_v3_google-0cc3c7bd.pth'
  ),
  'torchvision/alexnet': Weights(
    'alexnet_torchvision', 'alexnet-owt-7be5be79.pth'
  ),
  'torchvision/vgg16': Weights('vgg16', 'vgg16-397923af.pth'),
  FID: Weights(
    'inception_fid',
    'pt_inception-2015-12-05-6726825d.pth',
    'pytorch_fid',
    '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2',
  ),
}


class DownloadError(UserError):
  """A file could not be downloaded."""


def run_of(name: str | os.PathLike[str]) -> str:
  """Returns the folder of a run; downloads it first if the cache lacks it.

  Args:
    name: as `named.find` takes it.

  Raises:
    UserError: the name is unknown, or the run cannot be downloaded.
  """
  name = os.fspath(name)
  folder = named.in_cache(name)
  if not named.is_remote(name) or (folder / 'config.json').is_file():
    return named.find(name)
  with _made_aside(folder) as aside:
    if name.startswith('hf:'):
      _download_run(name, aside)
    else:
      _import_run(name, aside)
  return str(folder)


def weights_of(name: str) -> str:
  """Returns the path of a weight file; downloads it if it is named.

  Args:
    name: a path, or a key of `PUBLISHED`.

  Raises:
    UserError: there is no such name, or the file cannot be downloaded.
  """
  if not named.is_remote(name) or name.startswith('hf:'):
    return name
  if name not in PUBLISHED:
    raise _unknown(name)
  known = PUBLISHED[name]
  path = named.cache() / name.partition('/')[0] / known.file
  if path.is_file():  # it may have been put there by hand
    with open_regular(path) as opened:
      found = hashlib.file_digest(opened, 'sha256').hexdigest()
    if not found.startswith(known.checked):
      raise UserError(
        f'{path} is not the file of {name}: its SHA-256 begins with '
        f'{found[:8]}; delete it, and it is downloaded'
      )
  else:
    try:
      with _made_aside(path) as aside:
        download(known.url, aside, known.checked, _MAX_FILE)
    except DownloadError as error:
      raise DownloadError(
        f'{name}: {error}; or put {known.url} at {path}'
      ) from error
  return str(path)


def download(
  url: str, path: pathlib.Path, digest: str = '', max_bytes: int = _MAX_FILE
) -> None:
  """Downloads a file.

  Args:
    url: of the file.
    path: of the new file.
    digest: the SHA-256 that it must have, or the beginning of that.
    max_bytes: size that it may have.

  Raises:
    DownloadError: the file cannot be reached, is cut, too large or another.
  """
  found = hashlib.sha256()
  try:
    request = urllib.request.Request(url, headers={'User-Agent': 'googlenet'})
    with (
      urllib.request.urlopen(request, timeout=_SECONDS) as answer,
      writing(path),
      open_new(path) as file,
    ):
      for part in _shown(answer, url, max_bytes):
        found.update(part)
        file.write(part)
  except urllib.error.HTTPError as error:
    error.close()
    raise DownloadError(
      f'{url} cannot be downloaded: the server answers {error.code} '
      f'{error.reason}'
    ) from error
  except urllib.error.URLError as error:
    reason = getattr(error.reason, 'strerror', None) or error.reason
    raise DownloadError(
      f'{url} cannot be reached ({reason}): connect to the network and repeat '
      'the command'
    ) from error
  except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
    raise _cut(url, type(error).__name__) from error
  if not found.hexdigest().startswith(digest):
    raise DownloadError(
      f'{url} is not the file that is expected: its SHA-256 is '
      f'{found.hexdigest()[:16]}... and should begin with {digest[:16]}'
    )


def _shown(
  answer: http.client.HTTPResponse | BinaryIO, url: str, max_bytes: int
) -> Iterator[bytes]:
  """Yields the bytes of an answer; of a large one, shows how far it is."""
  parts = _parts(answer, url, max_bytes)
  mib = math.ceil(_announced(answer) / _CHUNK)
  if mib < _SHOWN_MIB:
    yield from parts
    return
  tell(f'download {url}: {mib:,} MiB')
  what = f'download {url.rpartition("/")[2]}'
  with progress.shown_on(sys.stderr):
    yield from progress.counted(parts, mib, what, 'MiB')


def _announced(answer: http.client.HTTPResponse | BinaryIO) -> int:
  """Returns the number of bytes that a server announces, 0 if it does not."""
  text = answer.headers.get('Content-Length') or ''
  return int(text) if text.isdecimal() else 0


def _parts(
  answer: http.client.HTTPResponse | BinaryIO, url: str, max_bytes: int
) -> Iterator[bytes]:
  """Yields the bytes of an answer.

  Raises:
    DownloadError: they are too many, or fewer than announced.
  """
  announced = size = _announced(answer)
  got = 0
  while size <= max_bytes and (part := answer.read(_CHUNK)):
    got += len(part)
    size = max(size, got)
    yield part
  if size > max_bytes:
    raise DownloadError(
      f'{url} has more than {max_bytes:,} bytes, too many for what it should be'
    )
  if got < announced:
    raise _cut(url, f'after {got:,} of {announced:,} bytes')


def _cut(url: str, how: str) -> DownloadError:
  return DownloadError(
    f'the connection to {url} broke ({how}): repeat the command'
  )


def _remove_left(folder: pathlib.Path) -> None:
  """Removes what processes that were killed have left aside."""
  for left in folder.glob(f'{_ASIDE}*'):
    with contextlib.suppress(OSError):  # another process removes it too
      newest = max(p.stat().st_mtime for p in (left, *left.rglob('*')))
      if time.time() - newest > _LEFT_SECONDS:
        shutil.rmtree(left)


class _made_aside:  # noqa: N801, used as a function
  """Context of a path that gets its name if the block ends without an error."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def __enter__(self) -> pathlib.Path:
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      _remove_left(self._path.parent)
      self._folder = tempfile.mkdtemp(prefix=_ASIDE, dir=self._path.parent)
    except OSError as error:
      if is_full(error):
        raise
      raise UserError(
        f'the cache {self._path.parent} cannot be written ({error.strerror}): '
        'make room there, or set HOME to another folder'
      ) from error
    return pathlib.Path(self._folder) / self._path.name

  def __exit__(self, kind: type | None, *_: object) -> None:
    try:
      if kind is None:
        os.replace(pathlib.Path(self._folder) / self._path.name, self._path)
    except OSError:
      if not self._path.exists():  # else another process was faster
        raise
    finally:
      shutil.rmtree(self._folder, ignore_errors=True)


def _unknown(name: str) -> UserError:
  return UserError(
    f'{name} is not a network that can be downloaded'
    f'{did_you_mean(name, PUBLISHED)}: known are {", ".join(PUBLISHED)}, '
    'and hf:OWNER/NAME for published runs on Hugging Face'
  )


def _import_run(name: str, folder: pathlib.Path) -> None:
  """Makes a run of published weights."""
  # Imported late: the mode imports this file.
  from googlenet.tools.modes import import_weights

  if name not in PUBLISHED:
    raise _unknown(name)
  config = config_lib.resolve(config_lib.default_config())
  import_weights.import_run(config, str(folder), name)


def _download_run(name: str, folder: pathlib.Path) -> None:
  """Downloads the files of a published run.

  Raises:
    UserError: it is no such run, or a file is missing or another.
  """
  endpoint = os.environ.get('HF_ENDPOINT', '').rstrip('/') or _HUGGING_FACE
  if not re.match(r'https?://', endpoint):
    raise UserError(
      f'HF_ENDPOINT={endpoint} is not allowed: it takes the address of a '
      'server, like https://huggingface.co'
    )
  base = f'{endpoint}/{name.removeprefix("hf:")}/resolve/main'
  (folder / 'checkpoints').mkdir(parents=True)
  try:
    download(f'{base}/{_SUMS}', folder / _SUMS, max_bytes=_MAX_TEXT)
    for file, digest in _listed(folder / _SUMS, base).items():
      download(f'{base}/{file}', folder / file, digest)
  except DownloadError as error:
    raise DownloadError(
      f'{name}: {error}; or put its files at {named.in_cache(name)}'
    ) from error


def _listed(path: pathlib.Path, base: str) -> dict[str, str]:
  """Returns the SHA-256 of each file of a run.

  Raises:
    UserError: the list is not one of `googlenet.tools.publish`.
  """
  try:
    text = read_text(path)
  except UnicodeDecodeError:
    text = ''
  pairs = [re.fullmatch(r'([0-9a-f]{64})  (.+)', x) for x in text.splitlines()]
  found = {x[2]: x[1] for x in pairs if x and _OF_A_RUN.fullmatch(x[2])}
  if 'config.json' not in found or len(found) > 10:
    raise UserError(
      f'{base}/{_SUMS} is not the list of a run that python -m '
      'googlenet.tools.publish has written'
    )
  return found
