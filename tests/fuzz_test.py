"""Any input is used or refused in one line: flags, and files from outside.

python -m pytest -m slow tests/fuzz_test.py     # 10,000 flags, 6,300 files
"""

import gzip
import hashlib
import io
import os
import pathlib
import tracemalloc
import types

import hypothesis
import numpy as np
import pytest
from checkpoint_test import save, tree
from conftest import ROOT, load_config
from hypothesis import strategies as st
from photos import photo

import launch
from googlenet import config as config_lib
from googlenet.cli.command_line import parse
from googlenet.cli.overrides import as_flags, set_fields, split_flags
from googlenet.data import tfds_reader
from googlenet.data.idx import idx_header, read_idx
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.io import archive, array_files, checkpoint, pretrained
from googlenet.tools.weights import convert
from googlenet.tools.weights import names as names_lib

CONFIG = ROOT / 'configs/fmnist96.py'
# The largest that a file of some kilobytes may cost to be refused.
MEMORY = 8e6


def many(count):
  return hypothesis.settings(
    max_examples=count,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )


def one_line(error: UserError) -> str:
  text = ' '.join(str(error).split())
  assert text
  assert len(text) < 5000
  return text


names = st.one_of(
  st.sampled_from(sorted(FIELDS)),
  st.sampled_from(
    ['train', 'model', 'train.epoch', 'a.b.c', '', '.', 'seed.x']
  ),
  st.text(max_size=20),
)
values = st.one_of(
  st.integers().map(str),
  st.floats().map(str),
  st.booleans().map(str),
  st.text(max_size=30),
  st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=5))).map(
    lambda v: str(tuple(v))
  ),
  st.sampled_from(
    ['', '()', '(', '[' * 200, '0', '-1', '1e999', 'nan', 'None', '{}', '1_0']
    + ['train[:0]', 'train[5', 'params=float32,compute=int8', 'dynamic', '\0']
    + ['sgd', 'adamw', 'plain', 'tiny', 'he', '9' * 400, '../../etc', 'stop']
  ),
)
flags = st.lists(
  st.one_of(
    st.builds('--config.{}={}'.format, names, values),
    st.builds('--noconfig.{}'.format, names),
    st.builds('--{}={}'.format, st.sampled_from(['mode', 'workdir']), values),
    st.builds(
      '--{}={}'.format,
      st.sampled_from(
        ['num_processes', 'process_id', 'coordinator_address']
        + ['heartbeat_timeout_seconds', 'allow_config_change']
      ),
      values,
    ),
  ),
  min_size=1,
  max_size=4,
)


# Texts with what is special in a literal of Python, or that no file can hold.
texts = st.text(
  st.one_of(st.characters(), st.sampled_from('\'"\\\n\0\udc80\ud800')),
  max_size=8,
)
tuples = st.recursive(
  st.one_of(texts, st.integers(), st.floats(-1e9, 1e9)),
  lambda part: st.lists(part, max_size=3).map(tuple),
  max_leaves=6,
).map(lambda value: value if isinstance(value, tuple) else (value,))


@many(300)
@hypothesis.given(value=tuples)
def test_a_tuple_comes_back_from_the_text_of_its_flag(value):
  config = config_lib.default_config()
  set_fields(config, split_flags(as_flags({'train.teacher': value}))[0])
  assert config.train.teacher == value


def check_flags(given):
  """Never a traceback; what is accepted is a config that can be written."""
  try:
    arguments = parse(launch.FLAGS, ['launch.py', f'--config={CONFIG}', *given])
  except UserError as error:
    one_line(error)
    return
  text = config_lib.to_json(arguments.config)
  again = config_lib.resolve(config_lib.from_json(text))
  assert config_lib.to_json(again) == text


def check_bytes(folder, data, read, told='step_000000001.npz'):
  """Refused in a line, at a cost in memory that the file's size bounds."""
  path = folder / 'step_000000001.npz'
  path.write_bytes(data)
  before = sorted(os.listdir(folder))
  tracemalloc.start()
  text = told
  try:
    read(path)
  except UserError as error:
    text = one_line(error)
  assert told in text
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < MEMORY
  assert sorted(os.listdir(folder)) == before


def mutate(draw, data: bytes) -> bytes:
  data = bytearray(data)
  for _ in range(draw(st.integers(1, 4))):
    kind = draw(st.sampled_from(['flip', 'set', 'cut', 'insert', 'remove']))
    place = draw(st.integers(0, max(len(data) - 1, 0)))
    if kind == 'flip' and data:
      data[place] ^= 1 << draw(st.integers(0, 7))
    elif kind == 'set':
      new = draw(st.binary(min_size=1, max_size=8))
      data[place : place + len(new)] = new
    elif kind == 'cut':
      del data[place:]
    elif kind == 'insert':
      data[place:place] = draw(st.binary(max_size=40))
    else:
      del data[place : place + draw(st.integers(1, 40))]
  return bytes(data)


def reseal(data: bytes) -> bytes:
  """Gives changed bytes a checksum that is right: the parser meets them."""
  return data[:-64] + hashlib.sha256(data[:-64]).hexdigest().encode()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('fuzz')


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  return save(tmp_path_factory.mktemp('saved')).read_bytes()


def restore(path):
  shapes = pretrained.stored_shapes(path)['params']
  pretrained.stored_image_shape(path)
  restored = checkpoint.restore(path, tree(), {})
  assert restored.params.keys() == shapes.keys() == tree().keys()
  checkpoint.restore_state(path, {'params': tree(), 'network_state': {}})


IMAGES = gzip.compress(
  idx_header((5, 4, 4)) + np.arange(80, dtype=np.uint8).tobytes()
)
JSON = config_lib.to_json(load_config(CONFIG)).encode()
COUNTS = [
  pytest.param(200),
  pytest.param(10_000, marks=pytest.mark.slow),
]
FILES = [pytest.param(60), pytest.param(700, marks=pytest.mark.slow)]


@pytest.mark.parametrize('count', COUNTS)
def test_flags(count, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  many(count)(hypothesis.given(flags)(check_flags))()
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('count', FILES)
@pytest.mark.parametrize('is_resealed', [False, True])
def test_checkpoints(count, is_resealed, folder, saved):
  @many(count)
  @hypothesis.given(st.data())
  def check(data):
    changed = mutate(data.draw, saved)
    check_bytes(folder, reseal(changed) if is_resealed else changed, restore)

  check()


@pytest.mark.parametrize('count', FILES)
@pytest.mark.parametrize('is_inside', [False, True])
def test_images(count, is_inside, folder):
  @many(count)
  @hypothesis.given(st.data())
  def check(data):
    if is_inside:
      changed = gzip.compress(mutate(data.draw, gzip.decompress(IMAGES)))
    else:
      changed = mutate(data.draw, IMAGES)
    check_bytes(folder, changed, read_idx)

  check()


@pytest.mark.parametrize('count', FILES)
def test_stored_configs(count, folder):
  def read(path: pathlib.Path):
    config_lib.resolve(config_lib.load(path))

  @many(count)
  @hypothesis.given(st.data())
  def check(data):
    # A value that no field allows is told by the field, not by the file.
    check_bytes(folder, mutate(data.draw, JSON), read, told='')

  check()


WEIGHTS = {
  'conv1.conv.weight': np.ones((4, 3, 2, 2), np.float32),
  'fc.bias': np.arange(5, dtype=np.float16),
}
SAME = names_lib.VECTOR


def import_weights(path):
  entries = [
    names_lib.Entry(name, array.shape, 'params', name, 'w', SAME)
    for name, array in WEIGHTS.items()
  ]
  stored = array_files.read(path)
  problems = convert.find_problems(stored, entries)
  if any(problems):
    raise convert.refusal(str(path), problems)
  params = convert.to_ours(str(path), stored, entries)['params']
  assert {name: params[name]['w'].shape for name in params} == {
    name: array.shape for name, array in WEIGHTS.items()
  }


@pytest.mark.parametrize('count', FILES)
@pytest.mark.parametrize('suffix', ['.safetensors', '.npz'])
def test_weights(count, suffix, folder):
  path = folder / f'weights{suffix}'
  array_files.write(path, WEIGHTS)
  whole = path.read_bytes()

  def read(_):
    import_weights(path)

  @many(count)
  @hypothesis.given(st.data())
  def check(data):
    path.write_bytes(mutate(data.draw, whole))
    check_bytes(folder, b'', read, told=str(path))

  check()


@pytest.mark.parametrize(
  'every', [389, pytest.param(1, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('kind', ['sealed', 'resealed', '.npz', '.safetensors'])
def test_single_bits(kind, every, folder, saved):
  check_bits(kind, every, folder, saved)


@pytest.mark.slow
def test_single_bits_of_torch(folder):
  pytest.importorskip('torch', reason='reads .pth files')
  check_bits('.pth', 1, folder, b'')


def check_bits(kind, every, folder, saved):
  """No bit of a file of arrays leads to another error than one line."""
  path = folder / f'bits{kind if kind.startswith(".") else ".npz"}'
  read = import_weights
  if kind.endswith('sealed'):
    path.write_bytes(saved)
    read = restore
  else:
    array_files.write(path, WEIGHTS)
  whole = path.read_bytes()
  read(path)
  accepted = 0
  for bit in range(0, 8 * len(whole), every):
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(reseal(changed) if kind == 'resealed' else changed)
    text = str(path)
    try:
      read(path)
      accepted += 1
    except UserError as error:
      text = one_line(error)
    assert str(path) in text, bit
  if kind == 'sealed':
    assert accepted == 0


def photo_bytes(kind):
  file = io.BytesIO()
  photo(2).save(file, kind)
  return file.getvalue()


@pytest.mark.parametrize('count', FILES)
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.filterwarnings('ignore')  # Pillow warns of what it reads anyway
def test_photos(count, kind, monkeypatch):
  """A damaged image of a set is told with its number; no other is read."""
  whole = photo_bytes(kind)
  reader = tfds_reader.TfdsReader('set', 'here', 'train', (32, 32), 3, None)

  @many(count)
  @hypothesis.given(st.data())
  def check(data):
    changed = mutate(data.draw, whole)
    examples = [{'image': changed, 'label': 0}]
    source = types.SimpleNamespace(__getitems__=lambda _: examples)
    monkeypatch.setattr(reader, '_source', source)
    text = 'image 7 of the split'
    try:
      images, _ = reader(np.array([7]), 0)
      assert images.shape == (1, 32, 32, 3)
    except UserError as error:
      text = one_line(error)
    assert 'image 7 of the split' in text

  check()


def test_a_file_that_is_no_file(folder):
  with pytest.raises(archive.DamagedError, match='no such file'):
    restore(folder / 'nothing.npz')
  with pytest.raises(archive.DamagedError):
    restore(folder)
