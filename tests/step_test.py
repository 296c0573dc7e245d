"""The step: loss, gradients, microbatches, precision, masks, compilation."""

import io

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from googlenet import config as config_lib
from googlenet import optimizer as optimizer_lib
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.runtime import progress
from googlenet.runtime.parallel import PMAP_AXIS, replicated
from googlenet.train import loss as loss_lib
from googlenet.train import setup
from googlenet.train import step as step_lib
from googlenet.train.evaluate import evaluate, make_eval_step
from googlenet.train.state import make_train_state


def make(config):
  """Returns network, fresh state, train step and eval step."""
  config = config_lib.resolve(config)
  network = network_lib.make_network(config.model)
  size = config.data.image_size
  params, network_state = init_from_numpy(network, (size, size, 1), config.seed)
  schedule = optimizer_lib.make_schedule(config.optimizer, 10, 100)
  optimizer = optimizer_lib.make_optimizer(config.optimizer, schedule)
  return (
    network,
    make_train_state(params, network_state, optimizer, config.train),
    step_lib.make_train_step(network, optimizer, schedule, config),
    make_eval_step(network, config),
  )


def make_batch(batch_size=16, seed=0, **more):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (1, batch_size, 28, 28, 1), dtype=np.uint8),
    'label': rng.integers(0, 10, (1, batch_size)).astype(np.int32),
    **more,
  }


SEED = np.uint32(0)


def test_loss_against_numpy():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  hard = -log_p[np.arange(6), labels]
  np.testing.assert_allclose(
    loss_lib.cross_entropy(jnp.array(logits), jnp.array(labels)),
    hard,
    rtol=1e-5,
  )
  smooth = 0.9 * hard - 0.1 * log_p.mean(-1)
  np.testing.assert_allclose(
    loss_lib.cross_entropy(jnp.array(logits), jnp.array(labels), 0.1),
    smooth,
    rtol=1e-5,
  )


def test_first_step_against_plain_jax(config):
  """The step is SGD on the mean loss, and nothing else."""
  config.optimizer.schedule = 'constant'
  config.optimizer.warmup_steps = 0
  config.optimizer.momentum = 0.0
  config.optimizer.nesterov = False
  config.optimizer.weight_decay = 0.0
  config.optimizer.grad_clip_norm = 0.0
  network, state, train_step, _ = make(config)
  batch = make_batch()
  before = jax.device_get(state.params)

  def loss(params):
    x = (batch['image'][0] / 255 - 0.2860) / 0.3530
    outputs, _ = network.apply(
      params, {}, None, jnp.asarray(x, jnp.float32), True
    )
    log_p = jax.nn.log_softmax(outputs.logits)
    return -jnp.mean(log_p[jnp.arange(16), batch['label'][0]]), outputs.logits

  gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (value, logits), grads = gradient(before)
  state, metrics = train_step(state, batch, SEED)
  expected = jax.tree.map(lambda p, g: p - 0.05 * g, before, grads)
  chex.assert_trees_all_close(state.params, expected, rtol=1e-4, atol=1e-6)
  hits = np.mean(np.argmax(logits, -1) == batch['label'][0])
  np.testing.assert_allclose(metrics['loss'], value, rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'], hits)
  np.testing.assert_allclose(
    metrics['grad_norm'], optax.tree.norm(grads), rtol=1e-4
  )
  np.testing.assert_allclose(metrics['learning_rate'], 0.05)
  assert int(state.step) == 1


def test_a_cpu_has_two_programs_and_everything_else_one(config, monkeypatch):
  """Of the same step: averages, flips, a clipped gradient, batch norm."""
  config.model.normalization = 'batch'
  config.augment.flip = 'random'
  config.train.ema_decay = 0.9
  results = []
  for backend, count in (('cpu', 2), ('gpu', 1), ('tpu', 1)):
    monkeypatch.setattr(jax, 'default_backend', lambda b=backend: b)
    _, state, step, _ = make(config)
    stream = io.StringIO()
    with progress.shown_on(stream):
      for seed in range(2):
        state, metrics = step(state, make_batch(seed=seed), SEED)
    assert stream.getvalue().count('compile  ') == count, backend
    results.append(jax.device_get((state, metrics)))
  two, *others = results
  assert int(two[0].step) == 2
  for one in others:
    chex.assert_trees_all_close(one, two, rtol=2e-4, atol=1e-5)


def test_loss_falls_and_nothing_is_compiled_twice(config):
  config.optimizer.warmup_steps = 0
  _, state, train_step, _ = make(config)
  batch = make_batch()
  state, first = train_step(state, batch, replicated(SEED))
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: (
      compiled.append(event) if 'backend_compile' in event else None
    )
  )
  for _ in range(30):
    state, last = train_step(state, batch, replicated(SEED))
  assert float(last['loss']) < 0.8 * float(first['loss'])
  assert compiled == []


def test_microbatches_give_the_same_step(config):
  config.augment.flip = 'random'
  config.augment.mixup_alpha = 1.0
  steps = {}
  for parts in (1, 2):
    config.train.microbatches = parts
    _, state, train_step, _ = make(config)
    steps[parts] = jax.device_get(train_step(state, make_batch(), SEED))
  chex.assert_trees_all_close(steps[1], steps[2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ('compute', 'loss_scale', 'tolerance', 'kernels'),
  [
    ('bfloat16', 1.0, 0.15, 'xla'),
    pytest.param('bfloat16', 1.0, 0.15, 'auto', marks=pytest.mark.slow),
    ('float16', 128.0, 0.03, 'xla'),
  ],
)
def test_mixed_precision(config, compute, loss_scale, tolerance, kernels):
  """Half-width activations, float32 parameters, a gradient that is close."""
  config.model.kernels = kernels
  config.optimizer.grad_clip_norm = 0.0
  config.optimizer.warmup_steps = 0
  config.optimizer.weight_decay = 0.0
  _, state, train_step, _ = make(config)
  before = jax.device_get(state.params)
  whole, _ = train_step(state, make_batch(), SEED)

  config.train.precision = f'params=float32,compute={compute},output=float32'
  config.train.loss_scale = loss_scale
  _, state, train_step, _ = make(config)
  text = jax.jit(train_step).lower(state, make_batch(), SEED).as_text()
  assert {'bfloat16': 'xbf16>', 'float16': 'xf16>'}[compute] in text
  half, metrics = train_step(state, make_batch(), SEED)
  assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {
    np.dtype('float32')
  }
  assert metrics['loss'].dtype == np.float32

  def change(state):
    moved = jax.tree.map(np.subtract, jax.device_get(state.params), before)
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)])

  error = np.linalg.norm(change(half) - change(whole))
  assert 0 < error < tolerance * np.linalg.norm(change(whole))


def test_random_keys_follow_seed_and_step(config):
  """Without learning, augmentation alone changes the loss."""
  config.augment.crop_padding = 4
  config.optimizer.learning_rate = 1e-30
  config.optimizer.weight_decay = 0.0
  _, begin, train_step, _ = make(config)
  begin = jax.device_get(begin)  # each step donates the state it gets

  def run(seed):
    state = replicated(begin)
    seen = []
    for _ in range(2):
      state, metrics = train_step(state, make_batch(), np.uint32(seed))
      seen.append(float(metrics['loss']))
    return seen

  assert run(0) == run(0)
  assert run(0)[0] != run(1)[0]
  assert run(0)[0] != run(0)[1]


def test_positions_in_a_batch_of_two_processes(monkeypatch):
  """A process that repeats its part of a step alone draws the same numbers."""
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 2)
  label = np.zeros((2, 4), np.int32)

  def found(is_local):
    return jax.vmap(
      lambda label: step_lib.positions({'label': label}, is_local),
      axis_name=PMAP_AXIS,
    )(label)

  np.testing.assert_array_equal(np.ravel(found(True)), np.arange(8, 16))
  np.testing.assert_array_equal(np.ravel(found(False)), np.arange(8))


def test_alternating_flips_follow_example_and_epoch(config):
  """Without learning: epochs 0 and 2 are alike, wherever an image stands."""
  config.augment.flip = 'alternating'
  config.optimizer.learning_rate = 1e-30
  config.optimizer.weight_decay = 0.0
  _, state, train_step, _ = make(config)
  index = np.arange(16, dtype=np.int32)[None] + 7
  images = make_batch()
  seen = []
  for epoch, order in ((0, 1), (1, 1), (2, -1), (3, -1)):
    batch = {**images, 'index': index, 'epoch': np.full_like(index, epoch)}
    batch = {name: x[:, ::order] for name, x in batch.items()}
    state, metrics = train_step(state, batch, SEED)
    seen.append(float(metrics['loss']))
  np.testing.assert_allclose(seen[:2], seen[2:], rtol=1e-6)
  assert abs(seen[0] - seen[1]) > 1e-4


def test_evaluation_masks_padding(config):
  network, state, _, eval_step = make(config)
  mask = np.array([[1] * 11 + [0] * 5], np.float32)
  batch = make_batch(mask=mask)
  sums = jax.device_get(eval_step(state.params, state.network_state, batch))
  x = jnp.asarray((batch['image'][0] / 255 - 0.2860) / 0.3530, jnp.float32)
  logits = np.asarray(network.apply(state.params, {}, None, x, False)[0].logits)
  labels = batch['label'][0]
  losses = np.asarray(loss_lib.cross_entropy(logits, labels))
  order = np.argsort(-logits, -1)
  top_5 = [label in row[:5] for label, row in zip(labels, order, strict=True)]
  assert sums['count'] == 11
  assert sums['top_1'] == np.sum((order[:, 0] == labels)[:11])
  assert sums['top_5'] == np.sum(top_5[:11])
  np.testing.assert_allclose(sums['loss'], losses[:11].sum(), rtol=1e-4)
  batch['image'][0, 11:] = 7  # what the padding holds does not matter
  again = jax.device_get(eval_step(state.params, state.network_state, batch))
  assert again == sums


@pytest.mark.parametrize('on_device_mb', [0, 100])
@pytest.mark.parametrize('batch_size', [1000, 384])
def test_evaluate_counts_every_example_once(config, on_device_mb, batch_size):
  config.data.on_device_mb = on_device_mb
  run = setup.build(config_lib.resolve(config))
  scores = evaluate(
    run.eval_step,
    run.state.params,
    run.state.network_state,
    run.evaluation,
    batch_size,
  )
  assert scores['count'] == 1000
  assert 0 <= scores['accuracy'] <= scores['top_5'] <= 1
  reference = evaluate(
    run.eval_step,
    run.state.params,
    run.state.network_state,
    run.evaluation,
    250,
  )
  np.testing.assert_allclose(scores['loss'], reference['loss'], rtol=1e-5)
  assert scores['accuracy'] == reference['accuracy']
