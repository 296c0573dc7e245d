"""What benchmark, fine-tuning, import, export, evaluation refuse: one line."""

import pathlib
import sys

import pytest


def no_torch(tmp_path: pathlib.Path) -> pathlib.Path:
  path = tmp_path / 'python'
  path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
  path.chmod(0o755)
  return path


# Flags (or a function of tmp_path that makes them), what the line must say.
BAD_INPUT = {
  'unknown number of crops': (
    ['--mode=evaluate', '--workdir=run', '--config.eval.crops=12'],
    ['config.eval.crops=12', 'one of 1, 10, 144'],
  ),
  'an ensemble of which one is missing': (
    ['--mode=evaluate', '--workdir=one,two'],
    ['--workdir=one holds no checkpoint'],
  ),
  'benchmark in no time': (
    ['--mode=benchmark', '--config.benchmark.seconds=0'],
    ['config.benchmark.seconds=0', 'a number > 0'],
  ),
  'benchmark of a batch of nothing': (
    ['--mode=benchmark', '--config.benchmark.batch_sizes=(8,0)'],
    ['config.benchmark.batch_sizes=(8, 0)', 'whole numbers from 1'],
  ),
  'benchmark of an unknown precision': (
    ['--mode=benchmark', '--config.benchmark.precisions=("float31",)'],
    [
      "config.benchmark.precisions=('float31',)",
      'precisions as train.precision',
    ],
  ),
  'benchmark of no step': (
    ['--mode=benchmark', '--config.benchmark.steps=0'],
    ['config.benchmark.steps=0', 'from 1'],
  ),
  'benchmark of no round': (
    ['--mode=benchmark', '--config.benchmark.rounds=0'],
    ['config.benchmark.rounds=0', 'from 1'],
  ),
  'benchmark of batches larger than the data': (
    ['--mode=benchmark', '--config.benchmark.batch_sizes=(60001,)'],
    ['config.benchmark.batch_sizes: 60001', '60000 images'],
  ),
  'benchmark of batches that do not divide': (
    [
      '--mode=benchmark',
      '--config.benchmark.batch_sizes=(7,)',
      '--config.train.microbatches=2',
    ],
    ['config.benchmark.batch_sizes: 7', 'microbatches=2'],
  ),
  'benchmark of data that is not there': (
    ['--mode=benchmark', '--config.data.train_split=trian'],
    ["config.data.train_split='trian'", "'train'"],
  ),
  'benchmark with a Python that is not there': (
    ['--mode=benchmark', '--config.benchmark.torch_python=/nowhere/python'],
    ["config.benchmark.torch_python='/nowhere/python'", 'no such program'],
  ),
  'benchmark with a Python that has no torch': (
    lambda tmp_path: [
      '--mode=benchmark',
      f'--config.benchmark.torch_python={no_torch(tmp_path)}',
    ],
    ['config.benchmark.torch_python', "No module named 'torch'"],
  ),
  'benchmark with a Python that is no program': (
    lambda tmp_path: [
      '--mode=benchmark',
      f'--config.benchmark.torch_python={tmp_path}',
    ],
    ['config.benchmark.torch_python', 'no such program'],
  ),
  'benchmark into a folder that nobody can make': (
    ['--mode=benchmark', '--workdir=/proc/run'],
    ['--workdir=/proc/run', 'cannot be made'],
  ),
  'no run to start from': (
    ['--config.finetune.from_workdir=nothing'],
    ["config.finetune.from_workdir='nothing'", 'no checkpoint'],
  ),
  'frozen part that is not there': (
    ['--config.finetune.frozen=("inception_2b",)'],
    ['config.finetune.frozen', "'inception_2b'", "mean 'inception_2a'"],
  ),
  'the same part frozen twice': (
    ['--config.finetune.frozen=("conv_1","conv_1")'],
    ['config.finetune.frozen', 'different parts'],
  ),
  'everything frozen': (
    ['--config.finetune.frozen=("conv_1","inception_2a","logits")'],
    ['config.finetune.frozen', 'nothing to train'],
  ),
  'rate of a part that is not there': (
    ['--config.finetune.learning_rates=("logit=10",)'],
    ['config.finetune.learning_rates', "'logit'", "did you mean 'logits'"],
  ),
  'rate that is none': (
    ['--config.finetune.learning_rates=("logits=0",)'],
    ['config.finetune.learning_rates', 'factor > 0'],
  ),
  'rate of a frozen part': (
    [
      '--config.finetune.frozen=("conv_1",)',
      '--config.finetune.learning_rates=("conv_1/conv_7x7=2",)',
    ],
    ['config.finetune.learning_rates', "'conv_1/conv_7x7' is frozen"],
  ),
  'import of nothing': (
    ['--mode=import_weights', '--config.model.variant=tiny'],
    ['--weights is missing'],
  ),
  'import of a network that no one else has': (
    ['--mode=import_weights', '--weights=a.pth'],
    ["config.model.variant='tiny'", 'paper', 'torchvision', 'inception_v3'],
  ),
  'import of a file that is not there': (
    [
      '--mode=import_weights',
      '--weights=a.safetensors',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--weights=a.safetensors', 'no such file'],
  ),
  'import of another kind of file': (
    [
      '--mode=import_weights',
      '--weights=a.caffemodel',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--weights=a.caffemodel', '.safetensors, .pth, .pt'],
  ),
  'export without workdir': (
    ['--mode=export_weights', '--weights=a.pth'],
    ['--workdir is missing', 'export_weights'],
  ),
  'export to another kind of file': (
    [
      '--mode=export_weights',
      '--weights=a.npz',
      '--workdir=nothing',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--weights=a.npz', '.safetensors, .pth, .pt'],
  ),
  'export of no run': (
    [
      '--mode=export_weights',
      '--weights=a.safetensors',
      '--workdir=nothing',
      '--config.model.variant=torchvision',
      '--config.data.image_size=64',
    ],
    ['--workdir=nothing', 'no checkpoint'],
  ),
  'evaluate without workdir': (
    ['--mode=evaluate'],
    ['--workdir is missing'],
  ),
  'evaluate an empty workdir': (
    ['--mode=evaluate', '--workdir=nothing'],
    ['--workdir=nothing', 'no checkpoint'],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_of_a_mode_is_one_line(case, tmp_path, assert_refused):
  flags, words = BAD_INPUT[case]
  assert_refused(flags(tmp_path) if callable(flags) else flags, words)
