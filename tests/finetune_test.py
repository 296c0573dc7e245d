"""Fine-tuning: what is taken over, what stays as it is, rates of parts."""

import dataclasses
import re

import jax
import numpy as np
import optax
import pytest
from conftest import SMALL
from run_files import files_under

from googlenet import config as config_lib
from googlenet import optimizer
from googlenet.cli import command_line
from googlenet.errors import UserError
from googlenet.io import checkpoint, pretrained
from googlenet.model import network as network_lib
from googlenet.model.groups import parse_factors
from googlenet.model.initialization import init_from_numpy
from googlenet.optimizer import groups
from googlenet.train import finetune, messages, resume, setup

BATCH_NORM = (
  '--config.model.normalization=batch',
  '--config.model.aux_heads=on',
)


@dataclasses.dataclass
class Case:
  """A network of this run, and a stored one."""

  network: object
  params: dict
  network_state: dict


def make(config, channels=1, seed=0, **model):
  config = config.copy_and_resolve_references()
  config.model.update({'kernels': 'xla', **model})
  network = network_lib.from_config(config_lib.resolve(config))
  return Case(network, *init_from_numpy(network, (28, 28, channels), seed))


def stored(folder, case, step=5):
  checkpoint.folder_of(folder).mkdir(parents=True)
  state = {'params': case.params, 'network_state': case.network_state}
  snapshot = checkpoint.Snapshot(step, state, {})
  checkpoint.save(folder, snapshot)
  return str(folder)


def test_everything_is_taken_over(config, tmp_path):
  other = make(config, seed=1, normalization='batch', aux_heads='on')
  other.network_state['conv_1/conv_7x7']['mean'] += 3
  case = make(config, normalization='batch', aux_heads='on')
  params, network_state, lines = finetune.load(
    stored(tmp_path, other), case.network, case.params, case.network_state
  )
  for got, expected in (
    (params, other.params),
    (network_state, other.network_state),
  ):
    jax.tree.map(np.testing.assert_array_equal, got, expected)
  assert [line.split()[0] for line in lines] == ['from']
  assert 'step 5' in lines[0]


def test_other_classes_channels_and_heads(config, tmp_path):
  other = make(config, 3, seed=1, aux_heads='on')
  case = make(config, 1, num_classes=12, aux_heads='off')
  params, _, lines = finetune.load(
    stored(tmp_path, other), case.network, case.params, case.network_state
  )
  assert params['logits'] is case.params['logits']
  name = 'inception_2a/conv_3x3'
  np.testing.assert_array_equal(params[name]['w'], other.params[name]['w'])
  first = 'conv_1/conv_7x7'
  np.testing.assert_allclose(
    params[first]['w'],
    other.params[first]['w'].sum(2, keepdims=True),
    atol=1e-6,
  )
  text = '\n'.join(lines)
  assert 'new      logits: newly initialized' in text
  assert 'channels conv_1/conv_7x7: 3 -> 1' in text
  assert 'left out aux_1/conv_1x1, aux_1/fc, aux_1/logits' in text


def test_heads_that_the_other_run_has_not(config, tmp_path):
  case = make(config, normalization='batch', aux_heads='on')
  other = make(config, seed=1, normalization='batch')
  params, network_state, lines = finetune.load(
    stored(tmp_path, other), case.network, case.params, case.network_state
  )
  assert lines[-1] == (
    'new      aux_1/conv_1x1, aux_1/fc, aux_1/logits: newly initialized'
  )
  assert params['aux_1/fc'] is case.params['aux_1/fc']
  assert network_state.keys() == case.network_state.keys()


def test_other_classes_where_convolutions_are_the_classifier(config, tmp_path):
  cases = []
  for num_classes in (10, 7):
    config.model.update(variant='nin', num_classes=num_classes, kernels='xla')
    network = network_lib.make_network(config.model)
    cases.append(Case(network, *init_from_numpy(network, (67, 67, 1), 0)))
  _, _, lines = finetune.load(
    stored(tmp_path, cases[0]),
    cases[1].network,
    cases[1].params,
    cases[1].network_state,
  )
  names = ', '.join(
    f'conv_4/{name}' for name in ('conv_1x1_1', 'conv_1x1_2', 'conv_3x3')
  )
  assert lines[-1] == f'new      {names}: newly initialized'


@pytest.mark.parametrize(('old', 'new'), [(1, 3), (3, 1), (3, 3), (4, 3)])
def test_grey_images_look_the_same_in_any_number_of_channels(old, new):
  rng = np.random.default_rng(0)
  w = rng.normal(size=(7, 7, old, 8)).astype(np.float32)
  image = rng.normal(size=(7, 7, 1))

  def response(w):
    return np.einsum('hwc,hwco->o', np.repeat(image, w.shape[2], 2), w)

  adapted = finetune.convert_channels(w, new)
  assert adapted.shape == (7, 7, new, 8)
  assert adapted.dtype == np.float32
  np.testing.assert_allclose(response(adapted), response(w), atol=1e-4)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      {'width_multiplier': 2.0},
      'conv_1/conv_7x7/w has (7, 7, 1, 16) in place of (7, 7, 1, 8)',
    ),
    (
      {'normalization': 'batch'},
      'conv_1/conv_7x7/b has nothing in place of (8,)',
    ),
  ],
)
def test_another_network_is_refused(config, tmp_path, changes, words):
  case, other = make(config), make(config, **changes)
  with pytest.raises(UserError) as error:
    finetune.load(
      stored(tmp_path, other), case.network, case.params, case.network_state
    )
  text = str(error.value)
  assert 'config.finetune.from_workdir=' in text
  assert words in text
  assert '\n' not in text


def test_the_fields_that_name_another_network_are_told(config, tmp_path):
  config.finetune.from_workdir = str(tmp_path / 'run')
  other = make(config, variant='fmnist28', width_multiplier=0.5)
  stored(tmp_path / 'run', other)
  theirs = config.copy_and_resolve_references()
  theirs.model.update(variant='fmnist28', width_multiplier=0.5)
  (tmp_path / 'run/config.json').write_text(config_lib.to_json(theirs))
  with pytest.raises(UserError) as error:
    setup.build(config_lib.resolve(config))
  text = str(error.value)
  assert (
    "config.model.variant is 'tiny' here and 'fmnist28' in "
    f'{tmp_path}/run and config.model.width_multiplier is 1.0 here and 0.5 in '
    f'{tmp_path}/run: give --config={tmp_path}/run or '
    '--config.model.variant=fmnist28 --config.model.width_multiplier=0.5; '
    'conv_1/'
  ) in text
  *_, differences = text.split('=0.5; ')
  assert re.fullmatch(r'[^;]+; [^;]+; [^;]+ and \d+ more', differences)


def _finetuned(config, tmp_path, here, there):
  """Builds a run with a `model` section, from a run with another one."""
  config.finetune.from_workdir = str(tmp_path / 'run')
  stored(tmp_path / 'run', make(config, **there))
  theirs = config.copy_and_resolve_references()
  theirs.model.update(there)
  (tmp_path / 'run/config.json').write_text(config_lib.to_json(theirs))
  config.model.update(here)
  setup.build(config_lib.resolve(config))


@pytest.mark.parametrize(
  ('here', 'there', 'flag'),
  [
    ({'normalization': 'batch'}, {}, 'normalization=auto'),
    ({}, {'drop_branches': ('5x5',)}, 'drop_branches=\'("5x5",)\''),
    ({}, {'kernel_sizes': ('5x5=3',)}, 'kernel_sizes=\'("5x5=3",)\''),
  ],
)
def test_every_field_of_another_network_is_told(
  config, tmp_path, here, there, flag
):
  with pytest.raises(UserError) as error:
    _finetuned(config, tmp_path, here, there)
  assert f' or --config.model.{flag}; ' in str(error.value)


@pytest.mark.parametrize(
  ('here', 'there', 'flag'),
  [
    ({'activation': 'gelu'}, {}, 'activation=relu'),
    ({}, {'block_pool': 'average'}, 'block_pool=average'),
  ],
)
def test_another_function_of_the_same_parameters_is_told(
  config, tmp_path, capsys, here, there, flag
):
  _finetuned(config, tmp_path, here, there)
  warning = capsys.readouterr().err
  assert warning.startswith('warning: config.model.')
  assert f' or --config.model.{flag} to keep it' in warning


def test_the_same_function_in_other_words_is_not_told(config, tmp_path, capsys):
  here = {'normalization': 'none', 'dropout': 0.5, 'initializer': 'xavier'}
  _finetuned(config, tmp_path, here, {'aux_heads': 'on', 'num_classes': 7})
  assert 'warning' not in capsys.readouterr().err


def test_numbers_that_are_not_finite_are_refused(config, tmp_path):
  case = make(config)
  case.params['logits']['b'][1] = np.inf
  with pytest.raises(UserError, match='logits/b is not finite'):
    finetune.load(
      stored(tmp_path, case), case.network, case.params, case.network_state
    )


# ---- The optimizer.

PARAMS = {
  'conv_1/conv_7x7': {'w': np.ones(3, np.float32), 'b': np.ones(2, np.float32)},
  'conv_1/conv_7x7_b': {'w': np.ones(2, np.float32)},
  'logits': {'w': np.ones(4, np.float32)},
}


@pytest.mark.parametrize('name', optimizer.OPTIMIZERS)
def test_rates_multiply_the_step_of_every_optimizer(config, name):
  """Two steps: the same as another learning rate for the part alone."""
  config.optimizer.update(name=name, grad_clip_norm=0.0)
  rng = np.random.default_rng(0)
  grads = jax.tree.map(
    lambda p: rng.normal(size=p.shape).astype(p.dtype), PARAMS
  )

  def updates(rates, rate):
    rule = optimizer.make_optimizer(
      config.optimizer, optax.constant_schedule(rate)
    )
    rule = groups.with_rates(rule, rates)
    state = rule.init(PARAMS)
    _, state = rule.update(grads, state, PARAMS)
    return rule.update(grads, state, PARAMS)[0]

  if name in ('lars', 'lamb'):
    config.optimizer.weight_decay = 0.01
  got = updates({'conv_1': 0.5, 'conv_1/conv_7x7': 4.0}, 0.01)
  for module, factor in (
    ('conv_1/conv_7x7', 4.0),
    ('conv_1/conv_7x7_b', 0.5),
    ('logits', 1.0),
  ):
    expected = updates({}, 0.01 * factor)[module]
    # Momentum that is summed with the rate in it changes with all steps alike.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
      got[module],
      expected,
    )


@pytest.mark.parametrize('name', optimizer.OPTIMIZERS)
def test_frozen_parts_get_no_update_and_no_memory(config, name):
  config.optimizer.update(name=name, weight_decay=0.1)
  rule = optimizer.make_optimizer(
    config.optimizer, optax.constant_schedule(0.1)
  )
  frozen = groups.with_frozen(rule, ('conv_1',), PARAMS)
  state = frozen.init(PARAMS)
  updates, _ = frozen.update(PARAMS, state, PARAMS)
  assert not np.any(updates['conv_1/conv_7x7']['w'])
  assert not np.any(updates['conv_1/conv_7x7_b']['w'])
  assert np.all(updates['logits']['w'])
  alone = {'logits': PARAMS['logits']}
  expected, _ = rule.update(alone, rule.init(alone), alone)
  np.testing.assert_allclose(
    updates['logits']['w'], expected['logits']['w'], rtol=1e-6
  )
  sizes = [leaf.size for leaf in jax.tree.leaves(state)]
  assert sum(sizes) == sum(
    leaf.size for leaf in jax.tree.leaves(rule.init(alone))
  )


@pytest.mark.parametrize(
  'texts',
  [('logits',), ('=2',), ('a=0',), ('a=-1',), ('a=x',), ('a=nan',)]
  + [('a=1', 'a=2')],
)
def test_malformed_rates(texts):
  with pytest.raises(ValueError, match='.'):
    parse_factors(texts)


# ---- A whole run.


@pytest.mark.slow
def test_frozen_parts_are_the_same_to_the_bit_after_training(
  launch_py, launch_here, tmp_path
):
  """With weight decay, batch norm and two devices; the rest is trained."""
  first = launch_here(*SMALL, *BATCH_NORM, '--workdir=first')
  assert first.returncode == 0, first.stderr
  tuned = launch_py(
    *SMALL,
    *BATCH_NORM,
    '--workdir=tuned',
    '--config.model.num_classes=12',
    '--config.finetune.from_workdir=first',
    '--config.finetune.frozen=("conv_1","inception_2a/conv_3x3")',
    '--config.finetune.learning_rates=("logits=10","aux_1=0.5")',
    devices=2,
  )
  assert tuned.returncode == 0, tuned.stderr
  for text in (
    'from     first/checkpoints/step_000000006.npz: step 6; its images: '
    '28 pixels, mean (0.286), std (0.353)',
    'new      aux_1/logits, logits: newly initialized',
    'frozen   conv_1, inception_2a/conv_3x3: ',
    'rates    logits x 10, aux_1 x 0.5',
  ):
    assert text in tuned.stdout, tuned.stdout
  _, before = pretrained.read_run(tmp_path / 'first')
  _, after = pretrained.read_run(tmp_path / 'tuned')
  frozen = {'conv_1/conv_7x7', 'inception_2a/conv_3x3'}
  for module in before.params:
    for old, new in (
      (before.params, after.params),
      (before.network_state, after.network_state),
    ):
      for leaf in old.get(module, {}):
        a, b = old[module][leaf], new[module][leaf]
        if module in frozen:
          assert a.tobytes() == b.tobytes(), module
        else:
          assert a.shape != b.shape or np.any(a != b), (module, leaf)
  assert after.params['logits']['w'].shape[1] == 12
  evaluated = launch_here('--mode=evaluate', '--workdir=tuned', config='')
  assert evaluated.returncode == 0, evaluated.stderr


def test_from_a_workdir_without_a_run(launch_here, tmp_path):
  done = launch_here(*SMALL, '--config.finetune.from_workdir=nothing')
  assert done.returncode == 2
  assert "config.finetune.from_workdir='nothing' holds no checkpoint" in (
    done.stderr
  )
  assert done.stderr.count('\n') == 1
  assert files_under(tmp_path) == []


def test_a_run_with_a_checkpoint_no_longer_needs_its_source(config, tmp_path):
  """The source is gone: only a run without a checkpoint asks for it."""
  config.finetune.from_workdir = str(tmp_path / 'gone')
  resolved = config_lib.resolve(config)
  with pytest.raises(UserError, match='gone.* holds no checkpoint'):
    setup.build(resolved)
  assert not any('gone' in line for line in setup.build(resolved, True).lines)
  workdir = tmp_path / 'run'
  checkpoint.folder_of(workdir).mkdir(parents=True)
  (workdir / 'config.json').write_text(config_lib.to_json(config))
  for has_checkpoint in (False, True):
    found = resume.look(workdir, resolved, False)
    found.lock.release()
    assert found.is_run
    assert found.has_checkpoint == has_checkpoint
    state = {'params': {}, 'finite_check': {'loss_scale': np.float32(1)}}
    checkpoint.save(workdir, checkpoint.Snapshot(3, state, {}))


def test_a_source_in_the_home_folder(config, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  case = make(config, seed=1)
  stored(tmp_path / 'run', case)
  _, _, lines = finetune.load('~/run', *vars(case).values())
  assert f'{tmp_path}/run/checkpoints' in lines[0]
  with pytest.raises(UserError, match=f"{tmp_path}/rum' holds no checkpoint"):
    finetune.load('~/rum', *vars(case).values())


def test_a_sweep_is_no_source(config, tmp_path):
  (tmp_path / 'sweep.json').write_text('{}')
  trial = "from_workdir='.*' holds a sweep: give the folder of one of its tria"
  with pytest.raises(UserError, match=trial):
    finetune.load(str(tmp_path), *vars(make(config, seed=1)).values())


def test_a_published_network_is_for_fine_tuning(config, tmp_path):
  """What the message says works."""
  case = make(config, seed=1)
  folder = tmp_path / 'published'
  resolved = config_lib.resolve(config)
  pretrained.write_run(folder, resolved, case.params, case.network_state, 9)
  (folder / 'result.json').write_text('{"step": 9, "epoch": 10.0}')
  for allow in (False, True):
    with pytest.raises(UserError) as error:
      resume.look(folder, resolved, allow)
    assert str(error.value) == (
      f'--workdir={folder} holds a published or imported network, without the '
      'state of its training: it can be used, but not trained further. To '
      f'start a new run from it, give another --workdir, --config={folder}/'
      f'config.json and --config.finetune.from_workdir={folder}'
    )
  flags = [f'--config.finetune.from_workdir={folder}']
  read = command_line.read_config(str(folder / 'config.json'), '', flags)
  run = setup.build(read)
  assert run.lines[0].startswith(f'from     {folder}/checkpoints/')
  kept = jax.tree.leaves(case.params)[0]
  np.testing.assert_array_equal(jax.tree.leaves(run.state.params)[0], kept)


@pytest.mark.parametrize(
  ('result', 'words'),
  [
    ({'step': 6, 'epoch': 0.6}, 'a larger --config.train.max_steps with'),
    (
      {'step': 6, 'epoch': 10.0},
      'a larger --config.train.max_steps and more --config.train.epochs with',
    ),
    ({'step': 5, 'epoch': 10.0}, '(give more --config.train.epochs with'),
  ],
)
def test_a_finished_run_names_what_ended_it(config, result, words):
  assert words in messages.finished(result, 'run', config)


@pytest.mark.parametrize(
  ('value', 'shown'), [(4 / 9, '0.4444'), (1, '1.0000'), (None, '?')]
)
def test_the_accuracy_of_a_finished_run_has_four_digits(config, value, shown):
  line = messages.finished({'eval/accuracy': value}, 'run', config)
  assert f'eval accuracy {shown}: nothing is left to do' in line
