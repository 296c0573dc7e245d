"""Saved arrays come back bit for bit, or one line says why not."""

import re

import numpy as np
import pytest

from googlenet import checkpoint
from googlenet.errors import UserError


def tree(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'conv_1/conv_7x7': {
      'w': rng.normal(size=(7, 7, 1, 8)).astype(np.float32),
      'b': rng.normal(size=8).astype(np.float32),
    },
    'logits': {'w': rng.normal(size=(8, 10)).astype(np.float32)},
  }


def test_round_trip_and_only_the_last_is_kept(tmp_path):
  checkpoint.save(tmp_path, 5, tree(1), {})
  path = checkpoint.save(tmp_path, 12, tree(2), {'bn': {'mean': np.ones(3)}})
  assert [p.name for p in (tmp_path / 'checkpoints').iterdir()] == [path.name]
  assert checkpoint.latest(tmp_path) == path
  restored = checkpoint.restore(path, tree(), {'bn': {'mean': np.zeros(3)}})
  assert restored.step == 12
  for name, leaves in tree(2).items():
    for key, value in leaves.items():
      assert restored.params[name][key].tobytes() == value.tobytes()
  np.testing.assert_array_equal(restored.network_state['bn']['mean'], 1)
  with np.load(path, allow_pickle=False) as file:
    assert 'params/conv_1/conv_7x7/w' in file.files


def test_no_checkpoint(tmp_path):
  with pytest.raises(UserError, match='holds no checkpoint'):
    checkpoint.latest(tmp_path)


@pytest.mark.parametrize('cut', [0, 1, 100, 1000, -1])
def test_truncated(tmp_path, cut):
  path = checkpoint.save(tmp_path, 1, tree(), {})
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(UserError, match=re.escape(str(path))) as error:
    checkpoint.restore(path, tree(), {})
  assert '\n' not in str(error.value)


def restore_or_none(path):
  try:
    return checkpoint.restore(path, tree(), {})
  except UserError:
    return None


def test_a_flipped_bit_never_changes_an_array(tmp_path):
  """Anywhere in the file; in the arrays themselves it is always noticed."""
  path = checkpoint.save(tmp_path, 1, tree(), {})
  whole = path.read_bytes()
  in_array = whole.index(tree()['conv_1/conv_7x7']['w'].tobytes())
  rng = np.random.default_rng(0)
  for place in [in_array, in_array + 999, *rng.integers(len(whole), size=200)]:
    data = bytearray(whole)
    data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    restored = restore_or_none(path)
    if restored is None:
      continue
    assert place not in (in_array, in_array + 999)
    for name, leaves in tree().items():
      for key, value in leaves.items():
        assert restored.params[name][key].tobytes() == value.tobytes()


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (
      lambda t: t['logits'].update(w=np.zeros((8, 5))),
      r'logits/w.*float32 \(8, 10\), .*float64 \(8, 5\)',
    ),
    (lambda t: t.pop('logits'), r'logits/w.*asks for nothing'),
    (lambda t: t.update(new={'b': np.zeros(1)}), 'new/b it holds nothing'),
    (
      lambda t: t['logits'].update(w=t['logits']['w'].astype(np.float64)),
      'holds float32 .* asks for float64',
    ),
  ],
)
def test_another_network_is_refused(tmp_path, change, words):
  path = checkpoint.save(tmp_path, 1, tree(), {})
  expected = tree()
  change(expected)
  with pytest.raises(UserError, match=words):
    checkpoint.restore(path, expected, {})


def test_a_single_array_is_no_checkpoint(tmp_path):
  path = tmp_path / 'step_000000001.npz'
  with open(path, 'wb') as file:
    np.save(file, np.zeros(3))
  with pytest.raises(UserError, match='is damaged'):
    checkpoint.restore(path, tree(), {})
