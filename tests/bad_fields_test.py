"""Values of fields that are not allowed: one line each."""

import pytest

# Flags, what the line must say.
BAD_INPUT = {
  'text for an int': (
    ['--config.train.epochs=two'],
    ['config.train.epochs', "'two'", 'whole number'],
  ),
  'float for an int': (
    ['--config.train.batch_size=12.5'],
    ['config.train.batch_size', '12.5', 'whole number'],
  ),
  'text for a float': (
    ['--config.optimizer.learning_rate=fast'],
    ['config.optimizer.learning_rate', "'fast'", 'a number > 0'],
  ),
  'bad bool': (
    ['--config.optimizer.nesterov=maybe'],
    ['config.optimizer.nesterov', "'maybe'", 'true or false'],
  ),
  'weights of classes that train nothing': (
    ['--config.train.class_weights=(0,0.0)'],
    ['config.train.class_weights=(0, 0.0)', 'one of them > 0'],
  ),
  'deviation that makes infinite inputs': (
    ['--config.data.std=(1e-38,)'],
    ['config.data.std=(1e-38,)', 'numbers >= 1e-06'],
  ),
  'bad tuple': (
    ['--config.data.mean=(0.1,"x")'],
    ['config.data.mean', 'numbers'],
  ),
  'below the range': (
    ['--config.train.epochs=0'],
    ['config.train.epochs=0', 'from 1'],
  ),
  'not finite': (
    ['--config.optimizer.learning_rate=nan'],
    ['config.optimizer.learning_rate=nan', 'a number > 0'],
  ),
  'negative': (
    ['--config.optimizer.weight_decay=-1'],
    ['config.optimizer.weight_decay=-1.0', '>= 0'],
  ),
  'unknown variant': (
    ['--config.model.variant=plian'],
    ['config.model.variant', "'plian'", "'plain'"],
  ),
  'no place for LRN': (
    ['--config.model.variant=vgg16', '--config.model.normalization=lrn'],
    ["config.model.normalization='lrn'", 'vgg16', 'auto, none, batch'],
  ),
  'unknown normalization': (
    ['--config.model.normalization=bn'],
    ["config.model.normalization='bn'", 'auto, none, lrn, batch'],
  ),
  'no auxiliary heads': (
    ['--config.model.variant=nin', '--config.model.aux_heads=on'],
    ["config.model.aux_heads='on'", 'nin', 'auto, off'],
  ),
  'heads switched by a boolean': (
    ['--config.model.aux_heads=true'],
    ["config.model.aux_heads='true'", 'auto, on, off'],
  ),
  'image too small for heads': (
    [
      '--config.model.variant=plain',
      '--config.model.aux_heads=on',
      '--config.data.image_size=64',
    ],
    ['config.data.image_size=64', 'auxiliary heads', 'that works is 65'],
  ),
  'unknown activation': (
    ['--config.model.activation=rellu'],
    ["config.model.activation='rellu'", "did you mean 'relu'"],
  ),
  'dropout of everything': (
    ['--config.model.dropout=1'],
    ['config.model.dropout=1', 'below 1'],
  ),
  'no width': (
    ['--config.model.width_multiplier=0'],
    ['config.model.width_multiplier=0', 'a number > 0'],
  ),
  'no decay of statistics': (
    ['--config.model.batch_norm_decay=1'],
    ['config.model.batch_norm_decay=1', 'below 1'],
  ),
  'negative loss of heads': (
    ['--config.train.aux_loss_weight=-0.3'],
    ['config.train.aux_loss_weight=-0.3', '>= 0'],
  ),
  'unknown optimizer': (
    ['--config.optimizer.name=adamm'],
    ['config.optimizer.name', "did you mean 'adam'"],
  ),
  'resized smaller than the crop': (
    ['--config.data.resize=20'],
    ['config.data.resize=20', 'config.data.image_size=28', '0 or at least 28'],
  ),
  'a side that is negative': (
    ['--config.data.resize=-1'],
    ['config.data.resize=-1', 'from 0 to 4096'],
  ),
  'negative number of workers': (
    ['--config.data.workers=-1'],
    ['config.data.workers=-1', 'from 0 to 1024'],
  ),
  'random crop neither on nor off': (
    ['--config.augment.random_resized_crop=2'],
    ['config.augment.random_resized_crop', "'2'", 'true or false'],
  ),
  'crop larger than the image': (
    ['--config.augment.crop_area=(0.08,1.5)'],
    ['config.augment.crop_area=(0.08, 1.5)', 'like (0.08, 1.0)'],
  ),
  'crop aspects the wrong way round': (
    ['--config.augment.crop_aspect=(1.3,0.7)'],
    ['config.augment.crop_aspect=(1.3, 0.7)', 'smallest and the largest'],
  ),
  'crop of one number': (
    ['--config.augment.crop_area=(0.5,)'],
    ['config.augment.crop_area=(0.5,)', 'smallest and the largest'],
  ),
  'unknown kernels': (
    ['--config.model.kernels=fpga'],
    ['config.model.kernels', 'auto, xla, gpu, onednn, cpu'],
  ),
  'unknown precision': (
    ['--config.train.precision=float31'],
    ['config.train.precision', 'jmp policy'],
  ),
  'image too small': (
    ['--config.model.variant=plain', '--config.data.image_size=16'],
    ['config.data.image_size=16', 'smallest size that works is 17'],
  ),
  'batch not divisible': (
    ['--config.train.batch_size=65', '--config.train.microbatches=2'],
    ['config.train.batch_size=65', 'microbatches=2'],
  ),
  'more steps traced than made': (
    ['--config.logging.profile_steps=5'],
    ['config.logging.profile_steps=5', 'has 6 steps', 'at most 4'],
  ),
  'loss that is not finite': (
    [
      '--config.optimizer.learning_rate=1e30',
      '--config.optimizer.grad_clip_norm=0',
    ],
    [
      'train/loss is nan at step 2 (first the output of inception_2a)',
      'config.optimizer.learning_rate',
    ],
  ),
  'larger than float32': (
    ['--config.optimizer.learning_rate=1e39'],
    ['config.optimizer.learning_rate=1e+39', 'a number > 0'],
  ),
  'more classes than memory': (
    ['--config.model.num_classes=2147483647'],
    ['config.model.num_classes=2147483647', '100000'],
  ),
  'more steps than are counted': (
    ['--config.train.epochs=2147483647'],
    ['config.train.epochs=2147483647', 'choose at most'],
  ),
  'precision that JAX has not': (
    ['--config.train.precision=params=float32,compute=float64,output=float32'],
    ['config.train.precision', 'float32, bfloat16 or float16'],
  ),
  'epochs that do not rise': (
    ['--config.optimizer.step_epochs=(6.0,3.0)'],
    ['config.optimizer.step_epochs=(6.0, 3.0)', 'in rising order'],
  ),
  'a warm-up before a cycle that has one': (
    ['--config.optimizer.schedule=one_cycle'],
    [
      'config.optimizer.warmup_steps=100',
      "config.optimizer.schedule='one_cycle'",
      'give 0',
    ],
  ),
  'a rate that would rise': (
    ['--config.optimizer.decay_rate=1.1'],
    ['config.optimizer.decay_rate=1.1', 'a number > 0 and <= 1'],
  ),
  'patience with no metric': (
    ['--config.train.early_stopping=3'],
    [
      'config.train.early_stopping=3',
      'config.checkpoint.best_metric',
      'eval/accuracy',
    ],
  ),
  'unknown loss scale': (
    ['--config.train.loss_scale=auto'],
    ['config.train.loss_scale', "'auto'", 'a number > 0 or dynamic'],
  ),
  'loss scale of nothing': (
    ['--config.train.loss_scale=0'],
    ['config.train.loss_scale=0 ', 'a number > 0 or dynamic'],
  ),
  'unknown policy for what is not finite': (
    ['--config.train.on_nonfinite=ignore'],
    ['config.train.on_nonfinite', "'ignore'", 'stop, skip'],
  ),
  'no step that is not finite': (
    ['--config.train.max_nonfinite=0'],
    ['config.train.max_nonfinite=0', 'from 1'],
  ),
  'average that never moves': (
    ['--config.train.ema_decay=1'],
    ['config.train.ema_decay=1.0', 'from 0 to below 1'],
  ),
  'checkpoints of negative epochs': (
    ['--config.checkpoint.every_epochs=-1'],
    ['config.checkpoint.every_epochs=-1', 'from 0'],
  ),
  'checkpoints of negative steps': (
    ['--config.checkpoint.every_steps=-1'],
    ['config.checkpoint.every_steps=-1', 'from 0'],
  ),
  'checkpoints of negative seconds': (
    ['--config.checkpoint.every_seconds=-1'],
    ['config.checkpoint.every_seconds=-1.0', '>= 0'],
  ),
  'no checkpoint kept': (
    ['--config.checkpoint.keep=0'],
    ['config.checkpoint.keep=0', 'from 1'],
  ),
  'best by an unknown metric': (
    ['--config.checkpoint.best_metric=accuracy'],
    ['config.checkpoint.best_metric', "'accuracy'", 'eval/accuracy'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_fields_are_one_line(case, assert_refused):
  assert_refused(*BAD_INPUT[case])
