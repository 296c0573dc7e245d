"""--mode=evaluate in this process: checkpoints, averages, JSON."""

import errno
import json
import os
import re
import shutil

import jax
import numpy as np
import pytest
import small_run
from run_files import problems

import launch
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.input.preprocess import preprocess
from googlenet.io import checkpoint, pretrained
from googlenet.io.workdir import write_classes
from googlenet.tools.inference import trained
from googlenet.tools.modes.evaluate import _check_same_images
from googlenet.tools.scoring import averaging, scores
from googlenet.tools.scoring.predictions import predict_split
from googlenet.train import precise_bn

SPLIT = '--config.data.eval_split=test[:300]'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run with checkpoints of steps 2, 4 and 6, the best of which is known."""
  workdir = small_run.train(tmp_path_factory.mktemp('runs') / 'run')
  assert len(checkpoint.paths(workdir)) == 3
  return workdir


def evaluate(capfd, *flags):
  code = launch.main(['launch.py', '--mode=evaluate', *map(str, flags)])
  out, err = capfd.readouterr()
  assert (code, problems(err)) == (0, '')
  return out


def test_scores_are_shown_and_written(run, capfd, tmp_path):
  path = tmp_path / 'scores.json'
  out = evaluate(capfd, f'--workdir={run}', f'--output={path}')
  result = json.loads((run / 'result.json').read_text())
  told = json.loads(path.read_text())
  assert told['accuracy'] == result['eval/accuracy']
  low, high = told['accuracy_interval']
  assert low < told['accuracy'] < high
  assert f' +- {(high - low) / 2:.4f} (95 %), top-5' in out
  assert f'on {told["count"]:,} images, 1 view\n' in out
  assert told['views'] == 1
  assert told['loss'] == pytest.approx(result['eval/loss'], rel=1e-5)
  assert told['top_5'] == result['eval/top_5']
  assert told['count'] == np.sum(told['confusion']) == 300
  assert [c['name'] for c in told['classes']][8:] == ['Bag', 'Ankle boot']
  assert told['checkpoints'] == [
    {'path': str(checkpoint.path_of(run, 6)), 'step': 6}
  ]
  assert f'calibration error {told["calibration_error"]:.4f}' in out
  assert re.search(r'Ankle boot +\d+ +', out)
  assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_has_its_exit_code(run, tmp_path, monkeypatch, capfd):
  def fail(_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', fail)
  path = tmp_path / 'scores.json'
  given = [f'--workdir={run}', SPLIT]
  code = launch.main(['', '--mode=evaluate', *given, f'--output={path}'])
  assert code == 74
  assert f'error: {path} cannot be written' in capfd.readouterr().err
  assert list(tmp_path.iterdir()) == []
  before = sorted(run.rglob('*'))
  assert launch.main(['', '--mode=report', *given]) == 74
  assert f'{run}/report.html cannot be written' in capfd.readouterr().err
  assert sorted(run.rglob('*')) == before


def test_a_checkpoint_is_chosen(run, capfd):
  shown = [
    evaluate(capfd, f'--workdir={run}', f'--checkpoint={which}').split('\n')
    for which in ('2', '4', 'best', 'all')
  ]
  assert 'step_000000002.npz: step 2' in shown[0][0]
  best = json.loads((run / 'result.json').read_text())['best/step']
  assert f'step {best}' in shown[2][0]
  assert shown[0][1] != shown[1][1]
  assert [f'step {i}' in shown[3][i // 2 - 1] for i in (2, 4, 6)] == [True] * 3
  assert '3 networks averaged' in shown[3][3]


def members_of(run):
  return [
    trained.load_run(run, path=path) for path in pretrained.select(run, 'all')
  ]


def test_weights_are_averaged(run, capfd, tmp_path):
  members = members_of(run)
  assert [member.step for member in members] == [2, 4, 6]
  mean = averaging.average_weights(members)
  for module, leaves in mean.params.items():
    for name, leaf in leaves.items():
      parts = [np.asarray(one.params[module][name]) for one in members]
      np.testing.assert_allclose(leaf, np.mean(parts, 0), rtol=1e-6, atol=1e-8)
      assert np.any(parts[0] != parts[2])
  path = tmp_path / 'scores.json'
  flags = f'--workdir={run}', '--checkpoint=all', '--average=weights'
  out = evaluate(capfd, *flags, f'--output={path}')
  assert '3 weights averaged' in out
  told = json.loads(path.read_text())
  # From the definition: the mean network on the images.
  dataset = pipeline.load_split(members[0].config, 'eval_split')
  images, labels = dataset.read(np.arange(300))
  x = preprocess(images, members[0].config.data)
  outputs, _ = mean.network.apply(
    mean.params, mean.network_state, None, x, is_training=False
  )
  loss = -jax.nn.log_softmax(outputs.logits)[np.arange(300), labels].mean()
  assert told['loss'] == pytest.approx(float(loss), rel=1e-4)
  assert told['average'] == 'weights'


@pytest.mark.slow
def test_batch_norm_is_that_of_the_mean_of_weights(tmp_path, capfd):
  """Estimated after averaging, not averaged over what each estimated."""
  run = small_run.train(
    tmp_path / 'run', model__normalization='batch', eval__batch_norm_batches=2
  )
  members = members_of(run)
  config, mean = members[0].config, averaging.average_weights(members)
  state = precise_bn.estimate(
    precise_bn.make_statistics_step(config),
    mean.params,
    mean.network_state,
    pipeline.make_pipeline(config, pipeline.load_split(config, 'train_split')),
    config,
  )
  path = tmp_path / 'scores.json'
  flags = f'--workdir={run}', '--checkpoint=all', '--average=weights'
  evaluate(capfd, *flags, f'--output={path}')
  wanted, other = (
    scores.compute(found.probabilities, found.labels).loss
    for found in (
      predict_split(config, [mean._replace(network_state=state)]),
      predict_split(config, [mean]),
    )
  )
  assert abs(wanted - other) > 1e-4 * wanted
  told = json.loads(path.read_text())['loss']
  assert told == pytest.approx(float(wanted), rel=1e-5)


def test_images_of_training_are_told(run, capfd, tmp_path):
  flags = f'--workdir={run}', '--config.data.eval_split=train[100:200]'
  assert launch.main(['', '--mode=evaluate', *flags]) == 0
  err = problems(capfd.readouterr().err)
  assert err == (
    "warning: config.data.eval_split='train[100:200]' has 28 images of "
    "config.data.train_split='train[:128]': where a network was trained it is "
    'more often right than elsewhere\n'
  )
  # Those of another set are not.
  np.savez(
    tmp_path / 'others.npz',
    test_images=np.zeros((3, 28, 28), np.uint8),
    test_labels=np.array([0, 1, 9]),
    class_names=np.array(members_of(run)[0].class_names),
  )
  evaluate(
    capfd,
    *(f'--workdir={run}', '--config.data.source=arrays'),
    f'--config.data.data_dir={tmp_path}/others.npz',
    *('--config.data.train_split=test', '--config.data.eval_split=test'),
  )


def test_networks_that_are_averaged_have_the_same_views(run):
  """Those of the config that is asked, whatever each was trained with."""
  members = members_of(run)[:2]
  config = small_run.small_config(eval__flip=True)
  found = predict_split(config, members)
  alone = [predict_split(config, [one]).probabilities for one in members]
  np.testing.assert_allclose(found.probabilities, np.mean(alone, 0), atol=1e-6)
  plain = predict_split(members[0].config, members).probabilities
  assert np.abs(found.probabilities - plain).max() > 1e-3


def test_views_that_differ_are_told(run, tmp_path, capfd):
  other, path = tmp_path / 'other', tmp_path / 'other/config.json'
  shutil.copytree(run, other)
  config = json.loads(path.read_text())
  config['eval'] |= {'flip': True, 'shift': 1}
  path.write_text(json.dumps(config))
  flags = ['--mode=evaluate', f'--workdir={other},{run}', SPLIT]
  assert launch.main(['launch.py', *flags]) == 0
  out, err = capfd.readouterr()
  assert '6 views, 2 networks averaged' in out
  warnings = [x for x in err.splitlines() if x.startswith('warning')]
  assert warnings == [
    f'warning: config.eval.{name} is {value} in {other} and {own} in {run}: '
    f'that of the first counts for all; --config.eval.{name}= chooses'
    for name, value, own in (('flip', True, False), ('shift', 1, 0))
  ]
  evaluate(
    capfd, *flags[1:], '--config.eval.flip=True', '--config.eval.shift=0'
  )


def test_what_only_training_reads_may_differ():
  own = {'source': 'folder', 'data_dir': 'photos'}
  other = own | {'per_class': 5, 'classes': 'a.txt', 'on_bad_image': 'skip'}
  config, other = (
    small_run.small_config(**{f'data__{k}': v for k, v in fields.items()})
    for fields in (own, other)
  )
  _check_same_images(config, 'a', 'b', other)
  config = small_run.small_config()
  other = small_run.small_config(data__resize=30)
  with pytest.raises(UserError, match='config.data.resize is 0 in a and 30 in'):
    _check_same_images(config, 'a', 'b', other)


def test_networks_of_other_classes_are_not_averaged(run, tmp_path, capfd):
  """With its classes in another order, each network would be right."""
  other, flag = tmp_path / 'other', f'--workdir={run},{tmp_path}/other'
  shutil.copytree(run, other)
  names = (run / 'classes.txt').read_text().splitlines()
  swapped = [*names[:3], names[4], names[3], *names[5:]]
  write_classes(other, swapped)
  for average in ('predictions', 'weights'):
    code = launch.main(
      ['launch.py', '--mode=evaluate', flag, f'--average={average}']
    )
    out, err = capfd.readouterr()
    assert (code, out, err.count('\n')) == (2, '', 1), err
    assert f'class 3 is {names[3]!r} in {run} and {names[4]!r} in' in err
    assert str(other) in err
  write_classes(other, ['', *names[1:]])  # a class without a name is no other
  assert evaluate(capfd, flag, SPLIT)


def test_weights_of_two_networks_are_not_averaged(run):
  one, other, _ = members_of(run)
  for change, word in (
    ({'image_shape': (28, 28, 3)}, 'channels'),
    ({'network': other.network._replace(num_classes=9)}, 'num_classes'),
  ):
    with pytest.raises(UserError, match=f'differ in .*{word}'):
      averaging.average_weights([one, other._replace(**change)])


def test_the_best_is_not_guessed(run, tmp_path):
  with pytest.raises(UserError, match='step 2, 4, 6'):
    pretrained.select(run, '5')
  with pytest.raises(UserError, match="'best'"):
    pretrained.select(run, 'bset')
  (tmp_path / 'checkpoints').mkdir()
  arrays = {'step': np.asarray(3)}
  checkpoint.archive.write(checkpoint.path_of(tmp_path, 3), arrays)
  with pytest.raises(
    UserError, match='no best checkpoint.*best_metric.*step 3'
  ):
    pretrained.select(tmp_path, 'best')


BAD_INPUT = {
  'unknown average': (['--average=wieghts'], ["'weights'", 'predictions']),
  'unknown checkpoint': (['--checkpoint=newest'], ['last, best, all', '2, 4']),
  'no such step': (['--checkpoint=3'], ['--checkpoint=3', 'step 2, 4, 6']),
  'a file that is there': (['--output=old.json'], ['exists already']),
  'no such folder': (['--output=no/a.json'], ['--output=no/a.json', 'folder']),
  'a shift out of the image': (
    ['--config.eval.shift=28'],
    ['config.eval.shift=28', 'at most 27'],
  ),
  'no image': ([f'{SPLIT[:-5]}0:0]'], ['config.data.eval_split']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(case, run, tmp_path, monkeypatch, capfd):
  flags, words = BAD_INPUT[case]
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'old.json').write_text('old')
  code = launch.main(
    ['launch.py', '--mode=evaluate', f'--workdir={run}', *flags]
  )
  out, err = capfd.readouterr()
  assert (code, out, err.count('\n')) == (2, '', 1), err
  assert all(word in err for word in ['error: ', *words]), err
  assert [path.name for path in tmp_path.iterdir()] == ['old.json']
  assert (tmp_path / 'old.json').read_text() == 'old'


def test_evaluation_takes_overrides_of_the_runs_config(
  launch_here, trained_run
):
  done = launch_here(
    '--mode=evaluate',
    f'--workdir={trained_run}',
    '--config.data.eval_split=train[50000:50300]',
    config='',
  )
  assert done.returncode == 0, done.stderr
  assert 'train[50000:50300]: accuracy' in done.stdout
  assert 'on 300 images' in done.stdout


DAMAGE = {
  'truncated': ('checkpoints/step_000000006.npz', 'is damaged'),
  'of another network': ('checkpoints/step_000000006.npz', 'another network'),
  'not finite': ('checkpoints/step_000000006.npz', 'loss of these'),
  'config damaged': ('config.json', 'is damaged'),
  'config gone': ('config.json', 'holds no run'),
  'checkpoint gone': ('checkpoints', 'holds no checkpoint'),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_evaluating_a_damaged_run(launch_here, trained_run, tmp_path, damage):
  shutil.copytree(trained_run, tmp_path / 'run')
  name, words = DAMAGE[damage]
  path, flags = tmp_path / 'run' / name, []
  if damage == 'truncated':
    path.write_bytes(path.read_bytes()[:5000])
  elif damage == 'of another network':
    flags.append('--config.model.num_classes=12')
  elif damage == 'not finite':
    with np.load(path) as file:
      arrays = dict(file)
    arrays['params/logits/b'][0] = np.nan
    np.savez(path, **arrays)
  elif damage == 'config damaged':
    path.write_bytes(b'\xff\xfe{}')
  else:
    path.rename(tmp_path / 'elsewhere')
  done = launch_here('--mode=evaluate', '--workdir=run', *flags, config='')
  assert done.returncode == 2
  stderr = problems(done.stderr)
  assert stderr.startswith('error: ')
  assert stderr.count('\n') == 1, done.stderr
  assert words in done.stderr
  assert 'run' in done.stderr
