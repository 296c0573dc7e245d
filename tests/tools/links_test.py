"""Links, pipes and devices in folders from elsewhere: refused, not followed."""

import ast
import io
import os
import pathlib

import numpy as np
import pytest
from conftest import ROOT, small_config
from PIL import Image, features
from saved_run import save_run

from googlenet import config as config_lib
from googlenet.data import files as image_files
from googlenet.data.find import find
from googlenet.errors import UserError
from googlenet.io import array_files, checkpoint, events, pretrained, writer
from googlenet.io.workdir import Lock, is_locked, read_classes, write_text
from googlenet.runtime import files
from googlenet.tools import runs
from googlenet.tools.inference import outputs
from googlenet.train import resume

pytestmark = pytest.mark.skipif(
  not hasattr(os, 'mkfifo'), reason='needs pipes in folders'
)

# What is not opened, by what it would do: wait for ever, fill the memory.
SPECIAL = {
  'pipe': os.mkfifo,
  'device': lambda path: os.symlink('/dev/zero', path),
  'folder': os.mkdir,
}


def opened_elsewhere():
  """Yields file:line of calls that open files without the helpers."""
  names = {'read_text', 'read_bytes', 'write_text', 'write_bytes', 'truncate'}
  for path in sorted((ROOT / 'googlenet').rglob('*.py')):
    source = path.relative_to(ROOT / 'googlenet').as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
      if not isinstance(node, ast.Call):
        continue
      called = node.func
      if isinstance(called, ast.Name) and called.id == 'open':
        yield source
      elif isinstance(called, ast.Attribute) and called.attr in names:
        owner = getattr(called.value, 'id', '')
        if owner not in ('files', 'file', 'workdir'):
          yield source


def test_files_are_opened_in_one_place():
  """Elsewhere only what the system or this program itself has made."""
  assert set(opened_elsewhere()) == {
    'cli/help.py',  # /proc
    'data/imagenet.py',  # a file of the package
    'kernels/processor.py',  # /proc
    'io/workdir.py',  # the lock, after `check_own`
    'runtime/backend.py',  # /sys
    'runtime/files.py',
    'runtime/maps.py',  # /proc
    'runtime/preemption.py',  # a pipe of its own
    'runtime/streams.py',  # stdin, by its number
    'tools/benchmark/stolen.py',  # /proc
    'tools/inference/feature_files.py',  # in a new folder of its own
    'tools/publish.py',  # the same
  }


@pytest.mark.parametrize('kind', SPECIAL)
def test_what_is_no_regular_file_is_not_read(kind, tmp_path):
  path = tmp_path / 'file'
  SPECIAL[kind](path)
  message = 'Is a directory' if kind == 'folder' else 'not a regular file'
  with pytest.raises(OSError, match=message):
    files.open_regular(path)
  with pytest.raises(OSError, match=message):
    files.read_text(path)
  reader = image_files.Reader(image_files.Squeezed((8, 8)), 3)
  with pytest.raises(image_files.UnreadableError, match=message):
    reader(path)
  (tmp_path / 'a.npz').symlink_to(path)
  with pytest.raises(UserError, match=f'--weights=.*a.npz.*{message}'):
    array_files.read(tmp_path / 'a.npz')


def test_sizes_have_bounds(tmp_path):
  path = tmp_path / 'file'
  path.write_text('12345')
  assert files.read_text(path, 5) == '12345'
  with pytest.raises(OSError, match='5 bytes are more than the 4 allowed'):
    files.read_text(path, 4)
  os.truncate(path, 2**40)  # takes no space
  with pytest.raises(OSError, match='more than'):
    files.read_text(path)
  reader = image_files.Reader(image_files.Squeezed((8, 8)), 3)
  with pytest.raises(image_files.UnreadableError, match='more than'):
    reader(path)


def test_small_files_that_are_large_when_decoded(tmp_path):
  """A WebP of some hundred bytes would take 2 GiB."""
  if not features.check('webp'):
    pytest.skip('Pillow without WebP')
  path = tmp_path / 'a.webp'
  Image.new('RGB', (64, 64)).save(path, lossless=True)
  data = bytearray(path.read_bytes())
  at = data.index(b'VP8L') + 9  # 14 bits of the width - 1, 14 of the height - 1
  sides = int.from_bytes(data[at : at + 4], 'little') >> 28 << 28
  data[at : at + 4] = (sides | 9_400 << 14 | 9_400).to_bytes(4, 'little')
  path.write_bytes(data)
  reader = image_files.Reader(image_files.Squeezed((8, 8)), 3)
  message = '9401x9401 pixels of WEBP need 2107 MiB, more than 2048'
  with pytest.raises(image_files.UnreadableError, match=message):
    reader(path)


@pytest.mark.parametrize('kind', SPECIAL)
def test_a_workdir_of_them(kind, tmp_path):
  """A pipe in place of each file: one line each, and no waiting."""
  run = save_run(tmp_path / 'run', small_config())
  make = SPECIAL[kind]
  (run / 'classes.txt').unlink()
  make(run / 'classes.txt')
  with pytest.raises(UserError, match=r'classes.txt cannot be read \('):
    read_classes(run, 10)
  for name in ('result.json', 'diverged.json'):
    make(run / name)
  assert runs.read(str(run)).result == {}
  make(run / 'metrics.jsonl')
  with pytest.raises(OSError, match=r'metrics\.jsonl'):
    runs.read(str(run))
  with pytest.raises(UserError, match='metrics.jsonl is a link or no regular'):
    files.open_append(run / 'metrics.jsonl')
  make(checkpoint.path_of(run, 8))
  path, _ = pretrained.read_run(run)  # the one before it
  assert path == checkpoint.path_of(run, 7)
  (run / 'config.json').unlink()
  make(run / 'config.json')
  with pytest.raises((UserError, OSError), match=r'config\.json'):
    config_lib.load(run / 'config.json')
  make(run / 'lock')
  assert not is_locked(run)
  with pytest.raises(UserError, match='lock is a link or no regular file'):
    Lock(run)


@pytest.fixture
def treasure(tmp_path):
  """A file of the user's own, to which links in `tmp_path` lead."""
  path = tmp_path / 'own' / 'treasure'
  path.parent.mkdir()
  path.write_text('treasure')
  yield path
  assert path.read_text() == 'treasure'
  assert [p.name for p in path.parent.iterdir()] == ['treasure']


def save_checkpoint(path: pathlib.Path):
  params = {'a': {'w': np.zeros(3)}}
  step = int(path.name[5:14])
  checkpoint.save(
    path.parent.parent, checkpoint.Snapshot(step, {'params': params}, {})
  )


def write_output(path):
  with outputs.written_aside(path, 'w') as file:
    file.write('text')


WRITERS = {
  'checkpoints/step_000000005.npz': save_checkpoint,
  'result.json': lambda path: write_text(path, 'text'),
  'out.csv': write_output,
  'a.npz': lambda path: array_files.write(path, {'a': np.zeros(3)}),
}


@pytest.mark.parametrize('name', WRITERS)
def test_written_files_replace_links_and_follow_none(name, tmp_path, treasure):
  path = tmp_path / 'run' / name
  path.parent.mkdir(parents=True)
  links = [path, path.with_name(path.name + '.tmp'), path.with_suffix('.tmp')]
  for link in links:
    link.symlink_to(treasure)
  WRITERS[name](path)
  assert not path.is_symlink()
  assert path.stat().st_size > 0
  assert sorted(path.parent.iterdir()) == sorted(set(links))


def test_the_name_aside_is_taken(tmp_path, treasure, monkeypatch):
  """As if it were guessed: what is there is neither opened nor replaced."""
  monkeypatch.setattr(files.secrets, 'token_hex', lambda _: 'guessed')
  (tmp_path / 'a.guessed.tmp').symlink_to(treasure)
  with pytest.raises(FileExistsError):
    write_text(tmp_path / 'a', 'text')
  assert not (tmp_path / 'a').exists()


def test_appended_files_are_no_links(tmp_path, treasure, monkeypatch):
  for name in ('metrics.jsonl', 'lock'):
    (tmp_path / name).symlink_to(treasure)
  made = writer.Writer(tmp_path, '{}', ['a'], tensorboard=False)
  with pytest.raises(UserError, match='metrics.jsonl is a link'):
    made.resume(None, 1, writer.LogSize(3))
  with pytest.raises(UserError, match='lock is a link'):
    Lock(tmp_path)
  monkeypatch.setattr(events.time, 'time', lambda: 0.0)
  folder = tmp_path / 'tensorboard'
  events.EventFile(folder).close()
  (event_file,) = folder.iterdir()
  event_file.unlink()
  event_file.symlink_to(treasure)
  before = treasure.read_bytes()
  events.EventFile(folder).close()
  assert treasure.read_bytes() == before


def test_checkpoints_of_another_run(tmp_path):
  """A link to them would have them renamed and removed; to a disk it may be."""
  own = save_run(tmp_path / 'own', small_config())
  there = tmp_path / 'received'
  there.mkdir()
  config = config_lib.load(own / 'config.json')
  (there / 'config.json').write_text(config_lib.to_json(config))
  (there / 'checkpoints').symlink_to(own / 'checkpoints')
  with pytest.raises(UserError, match='is a link into another run, .*/own'):
    resume.look(there, config_lib.resolve(config), False)
  assert not (there / 'lock').exists()
  (own / 'config.json').unlink()
  for path in checkpoint.paths(own):  # they cannot be continued
    path.unlink()
  found = resume.look(there, config_lib.resolve(config), False)
  assert found.is_run
  found.lock.release()


def test_metrics_are_cut_where_the_checkpoint_ends(tmp_path):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 1}\n{"step": 2}\n')
  (tmp_path / 'result.json.0123abcd.tmp').write_text('half')
  made = writer.Writer(tmp_path, '{}', ['a'], tensorboard=False)
  made.resume(Lock(tmp_path), 1, writer.LogSize(12, 1))
  assert not list(tmp_path.glob('*.tmp'))
  made.write(2, 1.0, {})
  made.close()
  records = list(writer.read_records(tmp_path / 'metrics.jsonl'))
  assert records == [{'step': 1}, {'step': 2, 'epoch': 1.0}]


def test_links_in_circles_end(tmp_path, monkeypatch):
  """Every file once, by its plain path; linked folders belong to it."""
  monkeypatch.chdir(tmp_path)
  for name in (
    'g/1.png',
    'g/a/2.png',
    'g/.hidden/3.png',
    'beside/4.png',
    'g/__MACOSX/5.png',
  ):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (4, 4)).save(path)
  (tmp_path / 'g/0loop').symlink_to(tmp_path / 'g')
  (tmp_path / 'g/linked').symlink_to(tmp_path / 'beside')
  plain = ['g/1.png', 'g/a/2.png', 'g/linked/4.png']
  assert find('g/**', io.StringIO()) == plain
  assert find('g/**/*.png', io.StringIO()) == plain
  assert find('**/a/**', io.StringIO()) == ['g/a/2.png']
  assert find('g', io.StringIO()) == plain
  (tmp_path / 'g/a/up').symlink_to(tmp_path)  # two: 2**40 paths
  assert len(find('g/**', io.StringIO())) == 3
  assert len(find('g', io.StringIO())) == 3
