"""A run made small: nothing that is evaluated differs, nothing is spoilt."""

import hashlib
import json
import shutil
import types

import jax.numpy as jnp
import numpy as np
import pytest
from small_run import train

import googlenet
from googlenet import config as config_lib
from googlenet.errors import UserError
from googlenet.fields import LOCAL
from googlenet.io import pretrained
from googlenet.io.workdir import write_classes
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.runtime import machine
from googlenet.tools import publish, runs
from googlenet.tools.demo import answer
from googlenet.tools.report import sections


def arrays(folder):
  (path,) = (folder / 'checkpoints').iterdir()
  with np.load(path) as file:
    return dict(file)


def test_what_is_published_is_what_was_evaluated(
  trained_run, tmp_path, launch_here, capfd
):
  made = tmp_path / 'shared' / 'net'
  flags = ['--license=mit']
  assert publish.main([str(trained_run), str(made), *flags]) == 0
  said = capfd.readouterr().out
  result = json.loads((trained_run / 'result.json').read_text())
  assert f'eval accuracy {result["eval/accuracy"]:.4f}, ' in said
  before, after = arrays(trained_run), arrays(made)
  kept = {n for n in before if n.startswith(('params/', 'network_state/'))}
  assert after.keys() == {*kept, 'step', 'about'}
  for name in kept:
    np.testing.assert_array_equal(after[name], before[name])
  for name in ('classes.txt', 'metrics.jsonl', 'result.json'):
    assert (made / name).read_bytes() == (trained_run / name).read_bytes()
  listed = dict(
    line.split('  ')[::-1]
    for line in (made / publish.SUMS).read_text().splitlines()
  )
  files = {str(p.relative_to(made)): p for p in made.rglob('*') if p.is_file()}
  assert files.pop(publish.SUMS)
  _, head, text = files.pop(publish.CARD).read_text().split('---\n', 2)
  head = {
    key: json.loads(value)
    for key, _, value in (line.partition(': ') for line in head.splitlines())
  }
  assert head['license'] == 'mit'
  assert 'image-classification' in head['tags']
  (scored,) = head['model-index'][0]['results']
  assert scored['metrics'][0]['value'] == result['eval/accuracy']
  assert "googlenet.load('hf:OWNER/net')" in text
  assert 'T-shirt/top' in text
  assert listed == {
    name: hashlib.sha256(path.read_bytes()).hexdigest()
    for name, path in files.items()
  }
  assert list(made.parent.iterdir()) == [made]
  done = launch_here('--mode=evaluate', f'--workdir={made}', config='')
  assert f'accuracy {result["eval/accuracy"]:.4f}' in done.stdout, done.stderr


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_half_of_the_bytes_are_float32_again_when_they_are_read(
  trained_run, tmp_path, precision
):
  run, made = tmp_path / 'run', tmp_path / 'half'
  shutil.copytree(trained_run, run)
  config = config_lib.load(run / 'config.json', with_local=True)
  config.train.precision = precision
  (run / 'config.json').write_text(config_lib.to_json(config))
  assert publish.main([str(run), str(made), '--half']) == 0
  before, after = arrays(run), arrays(made)
  assert after['params/logits/b'].dtype == np.float32
  assert after['params/logits/w'].dtype.itemsize == 2
  weights = [n for n in after if n.startswith('params/') and n.endswith('/w')]
  assert all(2 * after[n].nbytes == before[n].nbytes for n in weights)
  read = googlenet.load(made)
  for module, leaves in googlenet.load(run).params.items():
    for leaf, value in leaves.items():
      found = read.params[module][leaf]
      assert found.dtype == np.float32
      dtype = 'float16' if precision == 'float32' else jnp.bfloat16
      rounded = value.astype(dtype) if value.ndim > 1 else value
      np.testing.assert_array_equal(found, rounded.astype(np.float32))
  again = tmp_path / 'again'  # of what is stored in two bytes
  assert publish.main([str(made), str(again), '--half']) == 0
  for name, array in arrays(again).items():
    np.testing.assert_array_equal(array, after[name])


def test_predictions_of_a_run_in_bfloat16_keep_their_bits(tmp_path):
  made = tmp_path / 'half'
  run = train(tmp_path / 'run', train__precision='bfloat16', train__epochs=1)
  assert publish.main([str(run), str(made), '--half']) == 0
  images = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), np.uint8)
  nets = googlenet.load(run), googlenet.load(made)
  whole, half = (net.predict(images) for net in nets)
  np.testing.assert_array_equal(whole, half)
  changed = nets[0].params['logits']['w'] != nets[1].params['logits']['w']
  assert changed.any()


def test_a_weight_that_float16_cannot_hold_is_refused():
  params = {'conv': {'w': np.full((1, 2), 7e4, np.float32)}}
  assert publish.halved(params, 'bfloat16')['conv']['w'].itemsize == 2
  with pytest.raises(UserError, match='65504.*without --half'):
    publish.halved(params, 'float32')


def test_no_path_of_this_machine_is_published(trained_run, tmp_path):
  run = shutil.copytree(trained_run, tmp_path / 'run')
  config = config_lib.load(run / 'config.json')
  config.data.source = 'folder'  # others do not read data.classes
  for name in LOCAL:
    section, field = name.split('.')
    is_tuple = isinstance(config[section][field], tuple)
    secret = '/home/me/secret'
    config[section][field] = (secret,) if is_tuple else secret
  (run / 'config.json').write_text(config_lib.to_json(config))
  publish.publish(run, tmp_path / 'made')
  assert 'secret' not in (tmp_path / 'made/config.json').read_text()
  made = config_lib.load(tmp_path / 'made/config.json', with_local=True)
  assert made.train.compilation_cache == machine.DEFAULT_CACHE
  for name in LOCAL:  # --help
    assert name in publish.__doc__


@pytest.mark.parametrize(
  ('source', 'name', 'words'),
  [
    ('bundled', 'fashion_mnist', 'fashion_mnist'),
    ('idx', 'mnist', 'mnist'),
    ('folder', 'fashion_mnist', 'own images'),  # the field has its default
    ('folder', 'imagenet', 'imagenet'),  # imported weights
  ],
)
def test_own_images_have_no_name_of_another_set(config, source, name, words):
  config.data.source, config.data.name = source, name
  text = publish.card('net', config, {'eval/loss': 1.0}, ('a', 'b'), 'mit')
  assert f'| {words}, test[:1000] |' in text
  net = types.SimpleNamespace(
    config=config, step=1, image_shape=(28, 28, 1), class_names=('a', 'b')
  )
  assert answer.describe(net)['data'] == words
  run = runs.RunFiles('w', config, (), {}, ())
  assert f'on\n{words}: no training records' in sections.summary(run).body


def test_averages_are_what_is_published(config, tmp_path):
  run = train(
    tmp_path / 'run',
    train__epochs=1,
    model__normalization='batch',
    train__ema_decay=0.5,
    eval__batch_norm_batches=1,
  )
  publish.publish(run, tmp_path / 'made')
  made = arrays(tmp_path / 'made')
  assert {n.split('/')[0] for n in made} - {'step', 'about'} == {
    'ema_params',
    'ema_network_state',
  }
  config = json.loads((tmp_path / 'made/config.json').read_text())
  assert config['eval']['batch_norm_batches'] == 0
  assert config['train']['ema_decay'] == 0.5


def test_an_imported_network_is_published_without_scores(
  config, tmp_path, capsys
):
  run, made = tmp_path / 'run', tmp_path / 'made'
  config.model.num_classes = 3
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  params, state = init_from_numpy(network, (28, 28, 1), 0)
  pretrained.write_run(run, config, params, state)
  write_classes(run, ['ant', 'bee', 'cat'])
  assert publish.main([str(run), str(made)]) == 0
  said = capsys.readouterr().out
  assert f'in       {made}: imported, without scores, ' in said
  text = (made / publish.CARD).read_text()
  assert 'model-index' not in text
  assert '|' not in text
  assert 'metrics' not in text
  assert '3 classes: ant, bee, cat' in text
  listed = (made / publish.SUMS).read_text().splitlines()
  assert [line.split('  ')[1] for line in listed] == [
    'checkpoints/step_000000000.npz',
    'classes.txt',
    'config.json',
  ]
  assert googlenet.load(made).class_names == ('ant', 'bee', 'cat')


def set_step(run, step):
  """As if the checkpoint that was scored were lost."""
  result = json.loads((run / 'result.json').read_text()) | {'step': step}
  (run / 'result.json').write_text(json.dumps(result))


CASES = {
  'is not finished': lambda run: (run / 'result.json').unlink(),
  'no complete result.json': lambda run: (run / 'result.json').write_text('[]'),
  'which was not evaluated': lambda run: set_step(run, 1),
  'holds no run': lambda run: (run / 'config.json').unlink(),
  'holds no checkpoint': lambda run: shutil.rmtree(run / 'checkpoints'),
  'exists already': lambda run: (run.parent / 'made').write_text('mine'),
  'cannot be written': lambda run: (run.parent / 'file').write_text('mine'),
}


@pytest.mark.parametrize('words', CASES)
def test_refusals_leave_nothing(trained_run, tmp_path, capsys, words):
  run = tmp_path / 'run'
  shutil.copytree(trained_run, run)
  CASES[words](run)
  before = sorted(p for p in tmp_path.rglob('*'))
  made = tmp_path / ('file/made' if words == 'cannot be written' else 'made')
  assert publish.main([str(run), str(made)]) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ')
  assert err.count('\n') == 1
  assert words in err
  assert sorted(p for p in tmp_path.rglob('*')) == before


def test_a_run_is_named_as_for_the_modes(tmp_path, monkeypatch, capsys):
  """The message that no folder has the name suggested that same name."""
  monkeypatch.chdir(tmp_path)
  assert publish.main(['fmnist28_fast', 'made']) == 0
  assert 'accuracy 0.9' in capsys.readouterr().out
  assert (tmp_path / 'made' / 'classes.txt').is_file()
