"""Saved arrays come back bit for bit, or one line says why not."""

import io
import json
import re
import tracemalloc
import zipfile

import chex
import jax
import numpy as np
import pytest

from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.io import archive, checkpoint
from googlenet.io.archive import DamagedError, MismatchError
from googlenet.io.saver import Saver, WriteError
from googlenet.train import setup


def tree(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'conv_1/conv_7x7': {
      'w': rng.normal(size=(7, 7, 1, 8)).astype(np.float32),
      'b': rng.normal(size=8).astype(np.float32),
    },
    'logits': {'w': rng.normal(size=(8, 10)).astype(np.float32)},
  }


LIKE = {'params': tree(), 'network_state': {}}


def save(workdir, step=1, seed=0, keep=1, best_step=None, **more):
  state = {'params': tree(seed), 'network_state': {}, **more}
  checkpoint.folder_of(workdir).mkdir(exist_ok=True)
  snapshot = checkpoint.Snapshot(step, state, ABOUT)
  return checkpoint.save(workdir, snapshot, keep, best_step)


ABOUT = {'config': {'seed': 3}, 'number': 0.1 + 0.2}


def check_equal(one, other):
  """Bit for bit."""
  jax.tree.map(
    lambda a, b: np.testing.assert_equal(a.tobytes(), b.tobytes()), one, other
  )


def steps(workdir):
  return [int(p.stem.removeprefix('step_')) for p in checkpoint.paths(workdir)]


def test_round_trip(tmp_path):
  bn = {'bn': {'mean': np.ones(3)}}
  path = save(tmp_path, 12, seed=2, network_state=bn)
  restored = checkpoint.restore(path, tree(), {'bn': {'mean': np.zeros(3)}})
  assert restored.step == 12
  check_equal(restored.params, tree(2))
  check_equal(restored.network_state, bn)
  with np.load(path, allow_pickle=False) as file:
    assert 'params/conv_1/conv_7x7/w' in file.files
  like = LIKE | {'network_state': bn}
  state, about = checkpoint.restore_state(path, like)
  check_equal(state, {'params': tree(2), 'network_state': bn})
  assert about == ABOUT


def test_a_training_state_of_any_optimizer(tmp_path, config):
  config.train.ema_decay = 0.9
  for name in ('sgd', 'adamw'):
    config.optimizer.name = name
    state = setup.build(config_lib.resolve(config)).state
    host = checkpoint.to_host(state)._replace(step=np.int32(7))
    checkpoint.folder_of(tmp_path).mkdir(exist_ok=True)
    snapshot = checkpoint.Snapshot(7, host, ABOUT)
    path = checkpoint.save(tmp_path, snapshot)
    restored, _ = checkpoint.restore_state(path, state)
    chex.assert_trees_all_equal_structs(restored, host)
    check_equal(restored, host)
  arrays = sum(leaf.nbytes for leaf in jax.tree.leaves(host))
  assert path.stat().st_size < 1.1 * arrays + 300 * len(jax.tree.leaves(host))


def test_the_finite_check_is_read_from_files_of_earlier_versions(tmp_path):
  state = {'finite_check': {'skipped': np.int32(5)}}
  path = save(tmp_path, **state)
  with np.load(path) as file:
    assert file['guard/skipped'] == 5
  found, _ = checkpoint.restore_state(path, LIKE | state)
  assert found['finite_check']['skipped'] == 5


def test_the_last_and_the_best_are_kept(tmp_path):
  for step in (5, 12, 20, 31):
    save(tmp_path, step, keep=2, best_step=5)
  assert steps(tmp_path) == [31, 20, 5]
  save(tmp_path, 40, keep=2, best_step=40)
  assert steps(tmp_path) == [40, 31]


def newest(workdir):
  warnings = []
  path, restored = checkpoint.newest_whole(
    workdir, lambda p: checkpoint.restore(p, tree(), {}), warnings.append
  )
  assert all('\n' not in line for line in warnings)
  return path, restored, warnings


def test_no_checkpoint(tmp_path):
  with pytest.raises(UserError, match='holds no checkpoint'):
    newest(tmp_path)


def test_the_newest_whole_one_is_used_and_the_others_named(tmp_path):
  paths = [save(tmp_path, step, seed=step, keep=4) for step in (1, 2, 3, 4)]
  paths[3].write_bytes(paths[3].read_bytes()[:3000])
  archive.write(paths[2], {'step': np.int64(3), 'params/other': np.zeros(2)})
  before = [path.read_bytes() for path in paths]
  path, restored, warnings = newest(tmp_path)
  assert path == paths[1]
  check_equal(restored.params, tree(2))
  assert len(warnings) == 2
  assert re.search('step_000000004.npz is damaged.*from step_0', warnings[0])
  assert 'step_000000003.npz is of another network' in warnings[1]
  for path in paths[:2]:
    path.write_bytes(b'')
  with pytest.raises(UserError, match='nor is any of the 3 before it'):
    newest(tmp_path)
  assert [path.read_bytes() for path in paths[2:]] == before[2:]


@pytest.mark.parametrize('cut', [0, 1, 100, 1000, -72, -71, -64, -1])
def test_truncated(tmp_path, cut):
  path = save(tmp_path)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(DamagedError, match=re.escape(str(path))) as error:
    checkpoint.restore(path, tree(), {})
  assert '\n' not in str(error.value)


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
  path = save(tmp_path)
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  places = [*range(40), *range(len(whole) - 200, len(whole))]
  for place in [*places, *rng.integers(len(whole), size=100)]:
    data = bytearray(whole)
    data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    with pytest.raises(DamagedError):
      checkpoint.restore(path, tree(), {})


def test_an_archive_without_a_seal_is_read_by_its_own_checksums(tmp_path):
  """As NumPy writes it, for parameters of other hands."""
  path = save(tmp_path)
  with np.load(path) as file:
    arrays = {
      k: file[k] for k in file.files if k.startswith(('params', 'step'))
    }
  np.savez(path, **arrays)
  check_equal(checkpoint.restore(path, tree(), {}).params, tree())
  with pytest.raises(UserError, match='holds only parameters'):
    checkpoint.restore_state(path, LIKE)
  data = bytearray(path.read_bytes())
  data[data.index(tree()['conv_1/conv_7x7']['w'].tobytes()) + 99] ^= 1
  path.write_bytes(data)
  with pytest.raises(DamagedError):
    checkpoint.restore(path, tree(), {})


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda t: t['logits'].update(w=np.zeros((8, 5), np.float32)),
      r'logits/w.*float32 \(8, 10\), .*float32 \(8, 5\)',
    ),
    (lambda t: t.pop('logits'), r'logits/w.*asks for nothing'),
    (lambda t: t.update(new={'b': np.zeros(1)}), 'new/b it holds nothing'),
    (
      lambda t: t['logits'].update(w=t['logits']['w'].astype(np.float64)),
      'holds float32 .* asks for float64',
    ),
    (
      lambda t: t['logits'].update(w=np.zeros(1, np.float32)),
      'holds float32 .* asks for float32',
    ),
  ],
)
def test_another_network_is_refused(tmp_path, change, words):
  path = save(tmp_path)
  expected = tree()
  change(expected)
  with pytest.raises(MismatchError, match=words):
    checkpoint.restore(path, expected, {})


def test_a_single_array_is_no_checkpoint(tmp_path):
  path = tmp_path / 'step_000000001.npz'
  with open(path, 'wb') as file:
    np.save(file, np.zeros(3))
  with pytest.raises(UserError, match='is damaged'):
    checkpoint.restore(path, tree(), {})


class Payload:
  """Runs code when it is unpickled."""

  def __reduce__(self):
    return (pytest.fail, ('code was run',))


def hostile(kind: str) -> bytes:
  """Returns an archive that is not what its names say."""
  name, data = 'params/logits/w.npy', io.BytesIO()
  np.save(data, tree()['logits']['w'])
  content = data.getvalue()
  compression = zipfile.ZIP_STORED
  if kind == 'pickle':
    data = io.BytesIO()
    np.save(data, np.array([Payload()], object), allow_pickle=True)
    content = data.getvalue()
  elif kind == 'bomb':
    content, compression = bytes(2**28), zipfile.ZIP_DEFLATED
  elif kind == 'lying header':
    content = content.replace(b'(8, 10)', b'(8000000000, 10000)')
  elif kind == 'deep header':
    content = content[:10] + b'(' * 118 + content[128:]
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w', compression) as zipped:
    if kind == 'path':
      zipped.writestr('../../outside.npy', content)
    zipped.writestr('step.npy', npy(np.int64(1)))
    zipped.writestr(name, content)
  return file.getvalue()


def npy(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


@pytest.mark.parametrize(
  'kind', ['pickle', 'bomb', 'lying header', 'deep header', 'path']
)
def test_hostile_archives(tmp_path, kind):
  """No code, no file elsewhere, no memory beyond what is expected."""
  (tmp_path / 'a/b').mkdir(parents=True)
  path = tmp_path / 'a/b/step_000000001.npz'
  path.write_bytes(hostile(kind))
  before = set(tmp_path.rglob('*'))
  expected = {'logits': tree()['logits']}
  tracemalloc.start()
  if kind == 'path':  # a name that nobody asks for is only a name
    checkpoint.restore(path, expected, {})
  else:
    with pytest.raises(UserError):
      checkpoint.restore(path, expected, {})
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 5e6
  assert set(tmp_path.rglob('*')) == before


def test_what_is_written_about_a_run_can_be_read(tmp_path):
  """Its size has one limit; a save that cannot be made is not lost."""
  checkpoint.folder_of(tmp_path).mkdir()
  empty = len(json.dumps({'text': ''}))
  about = {'text': 'x' * (checkpoint.MAX_ABOUT_BYTES - empty)}
  path = checkpoint.save(tmp_path, checkpoint.Snapshot(1, LIKE, about))
  assert checkpoint.restore_state(path, LIKE)[1] == about
  about['text'] += 'x'
  for saved in (about, {'score': np.nan}):
    saver = Saver(tmp_path, 1, pytest.fail)
    saver.save(checkpoint.Snapshot(2, LIKE, saved))
    with pytest.raises(ValueError, match=r'4,194,305 bytes|JSON compliant'):
      saver.finish()
  assert checkpoint.paths(tmp_path) == [path]


def test_a_last_save_that_fails_is_told_once(tmp_path):
  """A warning that training continues would be wrong, and come first."""
  saver = Saver(tmp_path, 1, pytest.fail)
  (tmp_path / 'checkpoints').write_text('no folder')
  saver.save(checkpoint.Snapshot(2, LIKE, {}))
  with pytest.raises(WriteError, match='step 2 cannot be written'):
    saver.finish()
  saver.poll(wait=True)


def test_a_billionth_step_is_the_newest(tmp_path):
  """The names of ten digits do not sort as text."""
  for step in (999_999_999, 1_000_000_000):
    save(tmp_path, step, keep=2)
  assert steps(tmp_path) == [1_000_000_000, 999_999_999]
