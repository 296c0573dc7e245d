"""Distillation: what a teacher sees and says, its loss, a whole run."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import SMALL
from run_files import arrays, losses
from saved_run import save_run

from googlenet import config as config_lib
from googlenet.data.bundled import CLASSES
from googlenet.errors import UserError
from googlenet.input import mixing
from googlenet.io import checkpoint, pretrained
from googlenet.model import network as network_lib
from googlenet.runtime.parallel import replicated
from googlenet.tools.inference import trained
from googlenet.train import distillation, step
from googlenet.train import loss as loss_lib

NAMES = CLASSES['fashion_mnist']
SEED, STEP = np.uint32(0), np.int32(3)


def save_teacher(folder, config, seed=0, class_names=NAMES, **data):
  """Writes a run with batch norm, whose statistics are not those of a batch."""
  config = config.copy_and_resolve_references()
  config.model.normalization = 'batch'
  config.data.update(data)
  return save_run(folder, config, seed=seed, class_names=class_names)


def soft_targets(config, *teachers, batch, image_size=None):
  """Returns the soft targets [B, K] of a batch on one device."""
  config = config_lib.resolve(config)
  teachers = [
    t
    if isinstance(t, distillation.Teacher)
    else distillation.read(str(t), config, NAMES, 1)
    for t in teachers
  ]
  add = distillation.SoftTargets(config, teachers)
  batch = {name: x[None] for name, x in batch.items()}
  made = add(batch, replicated(SEED), replicated(STEP), image_size)
  assert made['image'] is batch['image']
  return np.asarray(made['soft_targets'])[0]


def make_batch(size=8, channels=1, **more):
  rng = np.random.default_rng(0)
  shape = size, 28, 28, channels
  image = rng.integers(0, 256, (size, 7, 7, channels), dtype=np.uint8)
  image = image.repeat(4, 1).repeat(4, 2).reshape(shape)
  label = rng.integers(0, 10, size).astype(np.int32)
  return {'image': image, 'label': label, **more}


class Linear:
  """A network of one layer, with an auxiliary head, that compiles at once."""

  kernels = SimpleNamespace(compiler_options=())

  def apply(self, params, state, keys, images, is_training, axis_name=None):
    x = images.reshape(len(images), -1)
    heads = {name: x @ p['w'] + p['b'] for name, p in params.items()}
    aux = {'aux': heads['aux']} if is_training else {}
    return network_lib.Outputs(heads['logits'], aux, {}), state

  def init(self, size=28):
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.05, (2, size * size, 10)).astype(np.float32)
    b = rng.normal(0, 1, (2, 10)).astype(np.float32)
    return {
      name: {'w': w[i], 'b': b[i]} for i, name in enumerate(('logits', 'aux'))
    }


def softmax(logits):
  p = np.exp(logits - logits.max(-1, keepdims=True))
  return p / p.sum(-1, keepdims=True)


def test_loss_and_gradient_against_numpy(config):
  config.train.teacher_weight = share = 0.7
  config.train.teacher_temperature = t = 3.0
  batch, params = make_batch(), Linear().init()
  rng = np.random.default_rng(1)
  q = softmax(rng.normal(0, 2, (8, 10)))
  q[0] = np.eye(10)[4]  # what has no probability is no NaN
  keys = tuple(jax.random.split(jax.random.key(0), (2, 8)))
  loss_fn = loss_lib.make_loss_fn(Linear(), config)
  gradient = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  (loss, (_, metrics)), grads = gradient(
    params, {}, {**batch, 'soft_targets': q.astype(np.float32)}, keys
  )
  x = ((batch['image'] / 255 - 0.2860) / 0.3530).reshape(8, -1)
  one_hot, losses = np.eye(10)[batch['label']], []
  for name, factor in (('logits', 1), ('aux', config.train.aux_loss_weight)):
    z = x @ params[name]['w'] + params[name]['b']
    hard = -(one_hot * np.log(softmax(z))).sum(-1).mean()
    p = softmax(z / t)
    ratio = np.log(np.where(q > 0, q, 1)) - np.log(p)
    losses.append(
      (1 - share) * hard + share * t**2 * (q * ratio).sum(-1).mean()
    )
    by_logits = (1 - share) * (softmax(z) - one_hot) + share * t * (p - q)
    for leaf, expected in (
      ('w', factor * x.T @ by_logits / 8),
      ('b', factor * by_logits.mean(0)),
    ):
      np.testing.assert_allclose(
        grads[name][leaf], expected, rtol=1e-3, atol=1e-5
      )
  np.testing.assert_allclose(metrics['loss'], losses[0], rtol=1e-4)
  np.testing.assert_allclose(metrics['aux_loss'], losses[1], rtol=1e-4)
  np.testing.assert_allclose(loss, losses[0] + 0.3 * losses[1], rtol=1e-4)


@pytest.mark.slow
def test_teachers_say_what_they_predict(config, tmp_path):
  """At their own size, normalization and precision, as in evaluation."""
  other = config.copy_and_resolve_references()
  other.train.precision = 'params=float32,compute=bfloat16,output=float32'
  other.data.update(image_size=32, mean=(0.5,), std=(0.2,))
  folders = [
    save_teacher(tmp_path / f'teacher_{i}', other, seed=i) for i in (0, 1)
  ]
  batch = make_batch()
  predicted = [
    trained.load_run(folder).predict(batch['image'], views=False)
    for folder in folders
  ]
  for p in predicted:
    assert p.std(0).max() > 0.003  # it tells images apart
  # At a temperature: softmax(z / T) is p^(1 / T), normalized.
  softer = [p**0.25 / (p**0.25).sum(-1, keepdims=True) for p in predicted]
  config.train.teacher_temperature = 4.0
  config.train.microbatches = 2
  np.testing.assert_allclose(
    soft_targets(config, *folders, batch=batch), np.mean(softer, 0), atol=1e-5
  )


@pytest.fixture
def quick_beta(monkeypatch):
  """Beta(1, 1) is uniform, which compiles much sooner."""
  monkeypatch.setattr(
    jax.random, 'beta', lambda key, *_: jax.random.uniform(key)
  )


@pytest.mark.slow
@pytest.mark.usefixtures('quick_beta')
def test_it_sees_the_crop_and_the_mixture_of_the_student(config):
  """Of which the student makes its inputs with the same keys."""
  config.augment.crop_padding = 4
  config.augment.flip = 'alternating'
  config.augment.cutmix_alpha = 1.0
  config.train.teacher_temperature = 1.0
  batch = make_batch(
    index=np.arange(8, dtype=np.int32), epoch=np.zeros(8, np.int32)
  )
  arrays = Linear().init(), {}
  config = config_lib.resolve(config)
  teacher = distillation.Teacher(
    Linear(), config.data, 'float32', arrays, '', ''
  )
  made = soft_targets(config, teacher, batch=batch)

  @jax.jit
  def seen(batch):
    # As the step draws them.
    drawn = step.drawn(batch, np.arange(8), SEED, STEP, 'alternating')
    return loss_lib.make_inputs(drawn[0], drawn[1][0], config)[0]

  x = np.asarray(seen(batch)).reshape(8, -1)
  expected = softmax(x @ arrays[0]['logits']['w'] + arrays[0]['logits']['b'])
  np.testing.assert_allclose(made, expected, atol=1e-4)
  assert np.abs(made - np.roll(made, 1, 0)).max(-1).min() > 0.01


@pytest.mark.slow
def test_boxes_are_those_of_the_size_of_the_step(config, tmp_path):
  """The student sees 56 pixels here, its teacher 28: half of each box."""
  teacher = save_teacher(tmp_path / 'teacher', config)
  config.train.teacher_temperature = 1.0
  config.augment.cutmix_alpha = 1.0
  batch = make_batch()
  made = soft_targets(config, teacher, batch=batch, image_size=56)
  places = np.arange(8)
  drawn, (keys, _) = step.drawn(batch, places, SEED, STEP, 'none')
  large = {**drawn, 'image': batch['image'].repeat(2, 1).repeat(2, 2)}
  mixed, _ = loss_lib.make_inputs(large, keys, config, 56)
  halved = np.asarray(mixed).reshape(8, 28, 2, 28, 2, 1).mean((2, 4))
  pixels = np.clip((halved * 0.3530 + 0.2860) * 255, 0, 255)
  expected = trained.load_run(teacher).predict(
    pixels.round().astype(np.uint8), views=False
  )
  np.testing.assert_allclose(made, expected, atol=0.03)
  other = soft_targets(config, teacher, batch=batch)
  assert np.abs(made - other).max() > 0.05


@pytest.mark.usefixtures('quick_beta')
def test_shares_are_those_of_the_mixture(config):
  config.augment.mixup_alpha = config.augment.cutmix_alpha = 1.0
  config.augment.mix_probability = 0.8
  images = np.random.default_rng(0).normal(size=(32, 9, 9, 2))
  images = images.astype(np.float32)
  keys = jax.random.split(jax.random.key(1), 32)

  @jax.jit
  def both(images, keys):
    mixed = mixing.mix(images, jax.numpy.arange(32), keys, config.augment)
    return mixed, mixing.shares(9, keys, config.augment)

  mixed, shares = both(images, keys)
  shares = np.asarray(shares)
  partners = images.reshape(16, 2, 9, 9, 2)[:, ::-1].reshape(images.shape)
  np.testing.assert_allclose(
    mixed.images, shares * images + (1 - shares) * partners, atol=1e-5
  )
  np.testing.assert_allclose(mixed.weights, shares.mean((1, 2, 3)), atol=1e-5)


# ---- What cannot be a teacher.


@pytest.mark.parametrize(
  ('case', 'words'),
  [
    ('missing', "config.train.teacher='.*/tether' holds no checkpoint.*teache"),
    ('sweep', "config.train.teacher='.*' holds a sweep: give the folder of"),
    ('fewer', 'tells 3 classes apart and this run 10: give a teacher of'),
    ('names', "calls class 1 'Trousers' and the data of this run 'Trouser'"),
    ('channels', r'images of 1 channel\(s\), into which those of .*, of 4,'),
    ('nan', 'has parameters that are not finite in .*step_000000007'),
    ('damaged', 'cannot be used: .*step_000000007.npz'),
    ('config', 'cannot be used: .*config.json'),
  ],
)
def test_refused(case, words, config, tmp_path):
  folder, names, stored = tmp_path / 'teacher', NAMES, 1
  resolved = config_lib.resolve(config)
  if case == 'names':
    names = ('T-shirt/top', 'Trousers', *NAMES[2:])
  if case == 'fewer':
    config.model.num_classes, names = 3, NAMES[:3]
  save_teacher(folder, config, class_names=names)
  (path,) = checkpoint.paths(folder)
  if case == 'missing':
    folder = tmp_path / 'tether'
  if case == 'sweep':
    folder = tmp_path
    (folder / 'sweep.json').write_text('{}')
  if case == 'channels':
    stored = 4
  if case == 'nan':
    _, old = pretrained.read_run(folder)
    old.params['logits']['b'] = np.full(10, np.nan, np.float32)
    trees = {'params': old.params, 'network_state': old.network_state}
    checkpoint.save(folder, checkpoint.Snapshot(7, trees, {}))
  if case == 'damaged':
    path.write_bytes(path.read_bytes()[:-50])
  if case == 'config':
    (folder / 'config.json').unlink()
  with pytest.raises(UserError, match=words) as error:
    distillation.read(str(folder), resolved, NAMES, stored)
  assert error.value.field == 'train.teacher'
  assert '\n' not in str(error.value)


def test_names_that_a_teacher_does_not_know_are_numbers(config, tmp_path):
  folder = save_teacher(tmp_path / 'teacher', config)
  (folder / 'classes.txt').unlink()
  distillation.read(str(folder), config_lib.resolve(config), NAMES, 1)


def test_a_missing_teacher_is_told_before_anything_is_written(assert_refused):
  assert_refused(
    ['--config.train.teacher=nothing'],
    ["config.train.teacher='nothing' holds no checkpoint"],
  )


# ---- A run with a teacher.


def test_a_run_with_a_teacher(trained_run, config, tmp_path, launch_here):
  """The teacher stays as it is; what was trained does not need it."""
  teacher = save_teacher(tmp_path / 'teacher', config, seed=3)
  before = arrays(checkpoint.paths(teacher)[0])
  done = launch_here(
    *SMALL,
    '--config.train.teacher=teacher',
    '--config.train.teacher_weight=0.8',
    '--workdir=run',
  )
  assert done.returncode == 0, done.stderr
  assert 'teacher  teacher/checkpoints/step_000000007.npz: step 7' in (
    done.stdout
  )
  assert '0.8 of the loss, at temperature 4\n' in done.stdout
  assert arrays(checkpoint.paths(teacher)[0]) == before
  found = losses(tmp_path / 'run')
  assert np.isfinite(found).all()
  assert (np.abs(found - losses(trained_run)) > 1e-3).all()
  shutil.rmtree(teacher)
  net = trained.load_run(tmp_path / 'run')
  assert net.step == 6
  assert net.config.train.teacher == ()


@pytest.mark.slow
def test_it_goes_on_with_the_same_teacher_only(
  trained_run, config, tmp_path, launch_here
):
  """With the same bits as without a break."""
  teacher = save_teacher(tmp_path / 'teacher', config, seed=3)
  flags = (
    *SMALL,
    '--config.checkpoint.every_steps=3',
    '--config.augment.crop_padding=2',
  )
  given = '--config.train.teacher=teacher'
  done = launch_here(*flags, given, '--workdir=whole')
  assert done.returncode == 0, done.stderr
  last = 'checkpoints/step_000000006.npz'
  shutil.copytree(tmp_path / 'whole', tmp_path / 'cut')
  (tmp_path / 'cut' / last).unlink()
  (tmp_path / 'cut/result.json').unlink()
  for more, words in (
    ([], 'with --config.train.teacher=\'("teacher",)\''),
    (['--config.train.teacher=gone'], "'gone' holds no checkpoint"),
    ([f'--config.train.teacher={trained_run}'], 'names another network'),
  ):
    done = launch_here(*flags, *more, '--workdir=cut')
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count('\n') == 1
    assert not (tmp_path / 'cut' / last).exists()
  # In another folder it is the same teacher.
  teacher.rename(tmp_path / 'moved')
  done = launch_here(*flags, '--config.train.teacher=moved', '--workdir=cut')
  assert done.returncode == 0, done.stderr
  assert 'resumed  after step 3' in done.stdout
  ends = [arrays(tmp_path / name / last) for name in ('whole', 'cut')]
  assert ends[0] == ends[1]


def test_a_run_without_a_teacher_gets_none_later(
  trained_run, config, tmp_path, launch_here
):
  save_teacher(tmp_path / 'teacher', config)
  shutil.copytree(trained_run, tmp_path / 'run')
  flags = ['--config.train.max_steps=8', '--allow_config_change']
  done = launch_here(
    *SMALL, *flags, '--config.train.teacher=teacher', '--workdir=run'
  )
  assert done.returncode == 2
  assert 'is of a run without a teacher: leave out' in done.stderr


def test_an_unfinished_teacher_is_told(trained_run, config, tmp_path, capsys):
  folder, config = tmp_path / 'run', config_lib.resolve(config)
  shutil.copytree(trained_run, folder)
  one = distillation.read(str(folder), config, NAMES, 1)
  assert capsys.readouterr().err == ''
  (folder / 'result.json').unlink()
  other = distillation.read(str(folder), config, NAMES, 1)
  assert 'has not ended; its step 6 is used' in capsys.readouterr().err
  assert one.identity == other.identity


@pytest.mark.slow
def test_devices_microbatches_and_forms_agree(
  config, tmp_path, launch_here, launch_py
):
  save_teacher(tmp_path / 'teacher', config, image_size=32)
  flags = (
    *SMALL,
    '--config.train.teacher=teacher',
    '--config.logging.every_steps=1',
    '--config.augment.cutmix_alpha=1.0',
    '--config.optimizer.warmup_steps=5',
  )
  one = launch_here(*flags, '--workdir=1')
  four = launch_py(*flags, '--workdir=4', devices=4)
  other = launch_py(
    *flags,
    '--workdir=2',
    '--config.train.parallel=shard_map',
    '--config.train.microbatches=2',
    devices=2,
  )
  for done in (one, four, other):
    assert done.returncode == 0, done.stderr
  one = losses(tmp_path / '1')
  assert one.shape == (6, 2)
  for name in ('4', '2'):
    np.testing.assert_allclose(losses(tmp_path / name), one, rtol=2e-4)
