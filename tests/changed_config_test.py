"""A run continues with each field that may change, or names the field."""

import functools
import pathlib
import re

import chex
import jax
import numpy as np
import optax
import pytest
from conftest import ROOT, small_config

from googlenet import config as config_lib
from googlenet.config import Durations
from googlenet.errors import UserError
from googlenet.fields import FIELDS
from googlenet.io import checkpoint, compare
from googlenet.io.archive import MismatchError
from googlenet.io.metrics import Progress
from googlenet.model import network as network_lib
from googlenet.model.initialization import abstract_init
from googlenet.train import resume
from googlenet.train.optimization import make_optimizer
from googlenet.train.state import TrainState, make_finite_check

STEP, SKIPPED = 30, 2
DATA = {
  'name': 'fashion_mnist',
  'split': 'train',
  'num_examples': 60000,
  'image_shape': [28, 28, 1],
  'num_classes': 10,
}
MOMENTUM = 'momentum of the optimizer'
FROZEN = 'momentum of frozen parts'
AVERAGE = 'averaged parameters'
SLOW = 'slow weights of Lookahead'
# For each field that may change with --allow_config_change: another value, and
# what of the state starts anew with it or is dropped.
OTHER = {
  'model.batch_norm_decay': (0.8, ''),
  'model.dropout': (0.1, ''),
  'model.stochastic_depth': (0.0, ''),  # tiny has no residual block
  'model.kernels': ('auto', ''),
  'data.eval_split': ('test[:500]', ''),
  'data.on_bad_image': ('skip', ''),
  'data.image_size': (32, ''),
  'data.mean': ((0.5,), ''),
  'data.std': ((0.5,), ''),
  'data.resize': (40, ''),
  'data.interpolation': ('bicubic', ''),
  'data.squeeze': (True, ''),
  'augment.flip': ('alternating', ''),
  'augment.crop_padding': (2, ''),
  'augment.random_resized_crop': (True, ''),
  'augment.crop_area': ((0.5, 1.0), ''),
  'augment.crop_aspect': ((1.0, 1.0), ''),
  'augment.colour_jitter': ((0.4, 0.4, 0.0, 0.0), ''),
  'augment.rand_augment_ops': (2, ''),
  'augment.rand_augment_magnitude': (5.0, ''),
  'augment.erase_probability': (0.5, ''),
  'augment.erase_area': ((0.1, 0.2), ''),
  'augment.erase_aspect': ((1.0, 1.0), ''),
  'augment.cutout_size': (4, ''),
  'augment.fill': ('mean', ''),
  'augment.mixup_alpha': (0.2, ''),
  'augment.cutmix_alpha': (1.0, ''),
  'augment.mix_probability': (0.5, ''),
  'optimizer.learning_rate': (0.01, ''),
  'optimizer.momentum': (0.0, f'dropped: {MOMENTUM}'),
  'optimizer.nesterov': (False, ''),
  'optimizer.weight_decay': (0.0, ''),
  'optimizer.grad_clip_norm': (0.0, ''),
  'optimizer.schedule': ('step', ''),
  'optimizer.warmup_steps': (0, ''),
  'optimizer.step_epochs': ((1.0,), ''),
  'optimizer.step_factor': (0.5, ''),
  'optimizer.poly_power': (1.0, ''),
  'optimizer.decay_epochs': (1.0, ''),
  'optimizer.decay_rate': (0.5, ''),
  'optimizer.decay_fraction': (0.5, ''),
  'optimizer.muon_steps': (3, ''),
  'optimizer.rates': (('*/b=2',), ''),
  'optimizer.decays': (('logits=0.5', '*/b=1'), ''),
  'optimizer.lookahead_period': (5, f'new: {SLOW}'),
  'optimizer.lookahead_rate': (0.8, ''),
  'optimizer.sam_rho': (0.05, ''),
  'finetune.frozen': (('conv_1',), f'dropped: {FROZEN}'),
  'finetune.learning_rates': (('logits=10',), ''),
  'train.epochs': (20, ''),
  'train.max_steps': (60, ''),
  'train.microbatches': (2, ''),
  'train.image_sizes': (('24@0', '28@0.5'), ''),
  'train.label_smoothing': (0.1, ''),
  'train.teacher_weight': (0.5, ''),
  'train.teacher_temperature': (2.0, ''),
  'train.aux_loss_weight': (0.5, ''),
  'train.class_weights': (('balanced',), ''),
  'train.sampling': ('balanced', ''),
  'train.precision': ('bfloat16', ''),
  'train.loss_scale': (8.0, 'new: loss scale'),
  'train.on_nonfinite': ('skip', ''),
  'train.max_nonfinite': (3, ''),
  'train.ema_decay': (0.9, f'new: {AVERAGE}'),
  'train.early_stopping': (2, ''),
  'eval.every_epochs': (2, ''),
  'eval.batch_size': (100, ''),
  'eval.batch_norm_batches': (3, ''),
  'eval.flip': (True, ''),
  'eval.shift': (1, ''),
  'checkpoint.every_epochs': (2, ''),
  'checkpoint.every_steps': (5, ''),
  'checkpoint.every_seconds': (9.0, ''),
  'checkpoint.keep': (3, ''),
  'checkpoint.best_metric': ('eval/loss', ''),
  'logging.every_steps': (5, ''),
  'logging.tensorboard': (False, ''),
  'logging.images': (1, ''),
  'logging.histograms': (1, ''),
  'logging.profile_steps': (1, ''),
}


def resolved(**changes):
  """The small config, with batch norm so that all parts of a state exist."""
  config = small_config()
  config.model.normalization = 'batch'
  config.checkpoint.best_metric = 'eval/accuracy'
  config.update_from_flattened_dict(changes)
  return config_lib.resolve(config)


@functools.cache
def shapes(variant: str, width: float, size: int):
  config = resolved(
    **{
      'model.variant': variant,
      'model.width_multiplier': width,
      'data.image_size': size,
    }
  )
  return abstract_init(network_lib.from_config(config), (size, size, 1))


_OPT_STATES = {}


def optimizer_shapes(config, params):
  key = str(config.optimizer), str(config.finetune), str(params)
  if key not in _OPT_STATES:
    durations = Durations(937, 9370, 9370)
    optimizer, _, _ = make_optimizer(config, durations, params)
    _OPT_STATES[key] = jax.eval_shape(optimizer.init, params)
  return _OPT_STATES[key]


def new_state(config, seed=0) -> TrainState:
  """The state before the first step, of NumPy arrays; nothing is compiled."""
  params, network_state = shapes(
    config.model.variant,
    config.model.width_multiplier,
    config.data.image_size,
  )
  opt_state = optimizer_shapes(config, params)
  averages = (params, network_state) if config.train.ema_decay else ({}, {})
  state = TrainState(
    jax.ShapeDtypeStruct((), np.int32),
    params,
    network_state,
    opt_state,
    make_finite_check(config.train.loss_scale),
    *averages,
  )
  rng = np.random.default_rng(seed)

  def fill(like):
    if not isinstance(like, jax.ShapeDtypeStruct):
      return like
    if like.dtype == np.int32:
      return np.zeros((), np.int32)
    return rng.random(like.shape, np.float32) * bool(seed)

  return jax.tree.map(fill, state)


def trained_state(config) -> TrainState:
  """A state that no array of the first one equals."""
  state = new_state(config, seed=1)
  updates = np.int32(STEP - SKIPPED)
  opt_state = jax.tree.map(
    lambda x: updates if x.dtype == np.int32 else x, state.opt_state
  )
  return state._replace(
    step=np.int32(STEP),
    opt_state=opt_state,
    finite_check=state.finite_check._replace(skipped=np.int32(SKIPPED)),
  )


def saved(
  folder: pathlib.Path, config, state: TrainState | None = None
) -> tuple[pathlib.Path, TrainState]:
  """Writes a checkpoint of a config; returns its path and its state."""
  state = state or trained_state(config)
  about = {
    'config': config.to_dict(),
    'data': DATA,
    'metrics_bytes': 0,
    'progress': Progress().to_json(0.0),
  }
  checkpoint.folder_of(folder).mkdir(parents=True, exist_ok=True)
  snapshot = checkpoint.Snapshot(STEP, state, about)
  return checkpoint.save(folder, snapshot), state


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return saved(tmp_path_factory.mktemp('run'), resolved())


def equal(one, other) -> bool:
  return jax.tree.structure(one) == jax.tree.structure(other) and all(
    map(np.array_equal, jax.tree.leaves(one), jax.tree.leaves(other))
  )


def momentum(opt_state) -> dict[str, np.ndarray]:
  """The momentum of each parameter, wherever it lies in the chain."""
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
    names = [k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)]
    if names and names[-1] == 'trace':
      found['/'.join(k.key for k in path[-2:])] = leaf
  return found


def schedule_counts(opt_state) -> set[int]:
  kind = optax.ScaleByScheduleState
  leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, kind))
  return {int(x.count) for x in leaves if isinstance(x, kind)}


def cases() -> dict[str, list[str]]:
  """Fields of the optimizer one by one, others by section."""
  found = {}
  for name, (_, told) in OTHER.items():
    section = name.partition('.')[0]
    is_alone = told or section in ('optimizer', 'finetune')
    found.setdefault(name if is_alone else section, []).append(name)
  return found


@pytest.mark.parametrize('case', cases())
def test_a_run_continues_with_other_values(run, case):
  path, state = run
  names = cases()[case]
  told = OTHER[names[0]][1]
  config = resolved(**{name: OTHER[name][0] for name in names})
  like = new_state(config)
  data = DATA
  if case in ('data', 'augment'):
    data = {**DATA, 'image_shape': [32, 32, 1]}  # the host resizes then
  found, _, line = resume.read_state_of(path, config, data, like)
  jax.tree.map(lambda a, b: chex.assert_equal_shape([a, b]), like, found)
  assert int(found.step) == STEP
  assert equal(found.params, state.params)
  assert equal(found.network_state, state.network_state)
  assert schedule_counts(found.opt_state) == {STEP - SKIPPED}
  kept, now = momentum(state.opt_state), momentum(found.opt_state)
  assert all(np.array_equal(now[key], kept[key]) for key in now)
  assert len(now) == len(momentum(like.opt_state))
  if told:
    value = config_lib.flatten(config)[case]
    assert line.startswith(told)
    assert f'config.{case} ' in line
    assert line.endswith(f' -> {value!r})')
  else:
    assert line == ''


def test_the_table_has_every_field_that_may_change():
  fixed = {*compare.NEVER_CHANGES, *compare.MAY_CHANGE}
  assert list(OTHER) == [name for name in FIELDS if name not in fixed]


def test_the_documentation_names_the_fields_of_the_program():
  text = (ROOT / 'docs/reliability.md').read_text()
  for start, fields in (
    ('These fields may not change during a run: ', compare.NEVER_CHANGES),
    ('These may change freely: ', compare.MAY_CHANGE),
  ):
    told = text.partition(start)[2].partition('.\n')[0].partition('. ')[0]
    found = set()
    for group in told.split('; '):
      section = ''
      for name in re.findall('`([^`]*)`', group):
        section, key = (
          name.rpartition('.')[::2] if '.' in name else (section, name)
        )
        found |= {
          field
          for field in FIELDS
          if field == f'{section}.{key}'.lstrip('.')
          or (key == '*' and field.startswith(f'{section}.'))
        }
    assert found == set(fields)


ADAM = {'optimizer.name': 'adamw'}
MUON = {'optimizer.name': 'muon', 'optimizer.muon_rest': 'adamw'}


@pytest.mark.parametrize(
  ('before', 'after', 'told'),
  [
    ({'optimizer.momentum': 0.0}, {}, f'new: {MOMENTUM}'),
    ({'optimizer.grad_clip_norm': 0.0}, {}, ''),
    ({'optimizer.weight_decay': 0.0}, {}, ''),
    ({'optimizer.rates': ('*/b=2',)}, {}, ''),
    ({'optimizer.decays': ('logits=0.5',)}, {}, ''),
    (
      {'optimizer.decays': ('logits=0.5',)},
      {'optimizer.decays': ('logits=0.25', '*/b=1')},
      '',
    ),
    ({'finetune.frozen': ('conv_1',)}, {}, f'new: {MOMENTUM}'),
    (
      ADAM | {'finetune.frozen': ('conv_1',)},
      ADAM,
      f'new: {MOMENTUM}',
    ),
    (ADAM, ADAM | {'finetune.frozen': ('conv_1',)}, f'dropped: {FROZEN}'),
    (MUON, MUON | {'optimizer.decays': ('logits=0',)}, ''),
    (MUON | {'optimizer.lookahead_period': 2}, MUON, f'dropped: {SLOW}'),
    ({'optimizer.lookahead_period': 2}, {'optimizer.lookahead_period': 3}, ''),
    ({'train.ema_decay': 0.9}, {}, f'dropped: {AVERAGE}'),
    ({'train.ema_decay': 0.9}, {'train.ema_decay': 0.5}, ''),
    ({'train.loss_scale': 'dynamic'}, {}, 'new: loss scale'),
    (
      {'optimizer.momentum': 0.0},
      {
        'optimizer.lookahead_period': 2,
        'train.ema_decay': 0.9,
        'optimizer.decays': ('logits=0',),
      },
      f'new: {AVERAGE} (config.train.ema_decay 0.0 -> 0.9), '
      f'{SLOW} (config.optimizer.lookahead_period 0 -> 2), '
      f'{MOMENTUM} (config.optimizer.momentum 0.0 -> 0.9)',
    ),
  ],
)
def test_parts_of_a_state_come_and_go(tmp_path, before, after, told):
  path, state = saved(tmp_path, resolved(**before))
  config = resolved(**after)
  like = new_state(config)
  found, _, line = resume.read_state_of(path, config, DATA, like)
  assert line.startswith(told)
  assert bool(line) == bool(told)
  jax.tree.map(lambda a, b: chex.assert_equal_shape([a, b]), like, found)
  assert schedule_counts(found.opt_state) == {STEP - SKIPPED}
  assert equal(found.params, state.params)
  if config.train.ema_decay and not before.get('train.ema_decay'):
    assert equal(found.ema_params, state.params)
    assert equal(found.ema_network_state, state.network_state)
  elif config.train.ema_decay:
    assert equal(found.ema_params, state.ema_params)
  if config.optimizer.lookahead_period:
    is_kept = before.get('optimizer.lookahead_period')
    slow = state.opt_state.slow if is_kept else state.params
    assert equal(found.opt_state.slow, slow)
    assert int(found.opt_state.count) == (STEP - SKIPPED if is_kept else 0)
  kept, now = moments(state.opt_state), moments(found.opt_state)
  is_anew = 'new:' in told and MOMENTUM in told
  for name, array in now.items():
    assert np.array_equal(array, 0 * array if is_anew else kept[name]), name
  scale = found.finite_check.loss_scale
  assert scale == like.finite_check.loss_scale


def moments(opt_state) -> dict[tuple[str, ...], np.ndarray]:
  """What a rule keeps, but for its schedule's count and for slow weights."""
  kind = optax.ScaleByScheduleState
  found = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(
    opt_state, is_leaf=lambda x: isinstance(x, kind)
  ):
    names = [k.name for k in path if isinstance(k, jax.tree_util.GetAttrKey)]
    if isinstance(leaf, kind) or len(path) == 1:
      continue
    if names[-1] != 'ns_coeffs' and 'slow' not in names:
      keys = [str(k.key) for k in path[-2:] if hasattr(k, 'key')]
      found[(names[-1], *keys)] = leaf
  return found


def test_steps_of_adam_are_counted_from_its_last_start(tmp_path):
  """A chain that moves by a place keeps both counts apart."""
  config = resolved(**ADAM)
  state = trained_state(config)
  adam = lambda x: isinstance(x, optax.ScaleByAdamState)  # noqa: E731
  restarted = jax.tree.map(
    lambda x: x._replace(count=np.int32(5)) if adam(x) else x,
    state.opt_state,
    is_leaf=adam,
  )
  path, _ = saved(tmp_path, config, state._replace(opt_state=restarted))
  config = resolved(**ADAM, **{'optimizer.grad_clip_norm': 0.0})
  found, _, line = resume.read_state_of(path, config, DATA, new_state(config))
  assert line == ''
  (now,) = (
    x for x in jax.tree.leaves(found.opt_state, is_leaf=adam) if adam(x)
  )
  assert int(now.count) == 5
  assert schedule_counts(found.opt_state) == {STEP - SKIPPED}


def test_an_image_size_that_makes_another_network_is_named(tmp_path):
  """The fully connected layers of AlexNet depend on it."""
  small = {'model.variant': 'alexnet', 'model.width_multiplier': 0.01}
  path, _ = saved(tmp_path, resolved(**small, **{'data.image_size': 63}))
  config = resolved(**small, **{'data.image_size': 96})
  with pytest.raises(UserError) as error:
    checkpoint.newest_whole(
      tmp_path,
      lambda path: resume.read_state_of(path, config, DATA, new_state(config)),
      warn=pytest.fail,
    )
  assert str(error.value) == (
    'config.data.image_size=96: the run has 63, and this network has other '
    'parameters for 96: continue with 63, or train into another --workdir'
  )


def test_arrays_of_another_run_are_refused(run):
  """The config is that of the checkpoint: nothing explains other arrays."""
  path, _ = run
  like = new_state(resolved(**{'train.ema_decay': 0.9}))
  with pytest.raises(MismatchError, match='at ema_network_state/.* nothing'):
    resume.read_state_of(path, resolved(), DATA, like)


@pytest.mark.parametrize(
  ('changes', 'lines'),
  [
    ({'optimizer.warmup_steps': 8}, []),
    (
      {'optimizer.warmup_steps': 1000},
      [
        'schedule config.optimizer.warmup_steps=1000 is longer than the whole '
        'schedule: shortened to its 8 steps'
      ],
    ),
    ({'optimizer.step_epochs': (1.0, 9.0)}, []),  # of another schedule
    (
      {'optimizer.schedule': 'step', 'optimizer.step_epochs': (1.0, 4.0, 9.0)},
      [
        'schedule config.optimizer.step_epochs=(1.0, 4.0, 9.0): no drop at 4, '
        '9, after the last of 4 epochs'
      ],
    ),
    ({'optimizer.schedule': 'staircase'}, []),
    (
      {'optimizer.schedule': 'staircase', 'optimizer.decay_epochs': 8.0},
      ['schedule config.optimizer.decay_epochs=8: no drop in 4 epochs'],
    ),
  ],
)
def test_what_a_short_schedule_never_reaches_is_told(changes, lines):
  config = resolved(
    **{'train.epochs': 4, 'optimizer.warmup_steps': 0, **changes}
  )
  params, _ = shapes('tiny', 1.0, 28)
  assert list(make_optimizer(config, Durations(2, 8, 8), params)[2]) == lines
