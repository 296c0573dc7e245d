"""--mode=predict: files to classes, on the screen and in files."""

import csv
import io
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import termios

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from run_files import problems
from saved_run import CLASS_NAMES, save_run
from trained_test import huge_png

import googlenet
import launch
from googlenet.data import files, pipeline
from googlenet.errors import UserError
from googlenet.tools.demo import answer

NUM_PHOTOS = 7


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """A run and photos, in the current folder."""
  monkeypatch.chdir(tmp_path)
  config.eval.batch_size = 3
  save_run(tmp_path / 'run', config)
  (tmp_path / 'photos/more').mkdir(parents=True)
  for i in range(NUM_PHOTOS):
    rng = np.random.default_rng(i)
    pixels = rng.integers(0, 256, (4 + i, 5, 3), np.uint8)
    folder = 'photos/more' if i > 3 else 'photos'
    Image.fromarray(pixels).resize((40, 30 + i)).save(f'{folder}/{i}.png')
  (tmp_path / 'photos/notes.doc').write_text('no image')
  return tmp_path


@pytest.fixture
def expected(run):
  """Path -> (label, probability) of all classes, the best first."""
  net = googlenet.load(run / 'run')
  paths = [
    str(path.relative_to(run)) for path in sorted(run.glob('photos/**/*.png'))
  ]
  probabilities = net.predict(net.read(paths))
  return {
    path: [(int(k), float(row[k])) for k in np.argsort(-row)]
    for path, row in zip(paths, probabilities, strict=True)
  }


def predict(*flags: str, code: int = 0) -> None:
  argv = ['launch.py', '--mode=predict', *flags]
  if not any(flag.startswith('--workdir=') for flag in flags):
    argv.append('--workdir=run')
  assert launch.main([*argv, '--config.train.compilation_cache=']) == code


def test_a_table(run, expected, capfd):
  predict('--images=photos', '--top_k=2')
  shown = capfd.readouterr()
  assert problems(shown.err) == (
    'photos: 1 file passed over: 1 without the suffix of an image\n'
  )
  *lines, last = shown.out.splitlines()
  assert lines == [
    f'{path:<17}  '
    + ', '.join(f'{CLASS_NAMES[k]} {p:.4f}' for k, p in classes[:2])
    for path, classes in sorted(expected.items())
  ]
  assert last.startswith('run/checkpoints/step_000000007.npz: step 7, 7 images')
  assert last.endswith(' images/s')


def test_csv(run, expected, capfd):
  predict('--images=photos/*.png,photos/more', '--format=csv', '--top_k=99')
  shown = capfd.readouterr()
  assert problems(shown.err) == ''
  rows = list(csv.DictReader(io.StringIO(shown.out)))
  assert [row['path'] for row in rows] == list(expected)
  assert len(rows[0]) == 1 + 2 * len(CLASS_NAMES)
  for row in rows:
    for i, (label, probability) in enumerate(expected[row['path']], start=1):
      assert row[f'class_{i}'] == CLASS_NAMES[label]
      assert float(row[f'probability_{i}']) == pytest.approx(
        probability, rel=1e-5
      )


NUM_SCORED = 40


def test_all_ways_give_the_numbers_of_evaluation(config, tmp_path, capfd):
  """Evaluation, Python, files, the demo and exported files, views included."""
  config.eval.flip, config.eval.shift, config.eval.batch_size = True, 1, 16
  config.data.eval_split = f'test[:{NUM_SCORED}]'
  workdir = f'--workdir={save_run(tmp_path / "run", config)}'
  scores = tmp_path / 'scores.json'
  argv = ['launch.py', '--mode=evaluate', workdir, f'--output={scores}']
  assert launch.main(argv) == 0
  told = json.loads(scores.read_text())
  net = googlenet.load(tmp_path / 'run')
  dataset = pipeline.load_split(net.config, 'eval_split')
  pixels, labels = dataset.read(np.arange(NUM_SCORED))

  probabilities = net.predict(pixels)
  true = probabilities[np.arange(NUM_SCORED), labels]
  assert (probabilities.argmax(-1) == labels).mean() == told['accuracy']
  assert -np.log(true).mean() == pytest.approx(told['loss'], rel=1e-6)
  assert net.views.count == 6
  once = net.predict(pixels, views=False)
  plain = net.apply(net.params, net.network_state, pixels, ['probabilities'])
  np.testing.assert_allclose(once, plain.end_points['probabilities'], atol=1e-6)
  assert np.abs(once - probabilities).max() > 1e-2

  paths = [tmp_path / f'{i:02}.png' for i in range(NUM_SCORED)]
  for path, image in zip(paths, pixels, strict=True):
    Image.fromarray(image[..., 0]).save(path)
  argv = ['launch.py', '--mode=predict', workdir, f'--images={tmp_path}/*.png']
  for flags, expected in (([], probabilities), (['--noviews'], once)):
    capfd.readouterr()
    assert launch.main([*argv, '--format=jsonl', '--top_k=10', *flags]) == 0
    shown = capfd.readouterr()
    lines = [json.loads(line)['classes'] for line in shown.out.splitlines()]
    found = [
      [c['probability'] for c in sorted(line, key=lambda c: c['label'])]
      for line in lines
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    cost = 'computed 6 times (eval.flip, eval.shift=1)'
    assert (cost in shown.err) == ('--views=false' in shown.err) == (not flags)

  told = answer.answer(net, pixels[0], net.views)
  found = {c['name']: c['probability'] for c in told['classes']}
  for name, p in zip(net.class_names, probabilities[0], strict=True):
    assert found[name] == pytest.approx(float(p), abs=1e-6)

  file = tmp_path / 'a.safetensors'
  argv = ['launch.py', '--mode=export', workdir]
  assert launch.main([*argv, f'--output={file}']) == 0
  assert 'averages 6 views of each image (eval.flip' in capfd.readouterr().out
  np.testing.assert_array_equal(
    googlenet.load(file).predict(pixels), probabilities
  )


def test_files_alone_are_predicted_like_what_they_hold(run, expected):
  net = googlenet.load('run')
  paths = list(expected)
  np.testing.assert_array_equal(
    net.predict(paths), net.predict(net.read(paths))
  )
  assert net.predict([]).shape == (0, len(CLASS_NAMES))
  with pytest.raises(UserError, match='photos/notes.doc cannot be read'):
    net.predict([*paths, 'photos/notes.doc'])


def test_compiling_is_told_on_stderr(run, capfd):
  """A width that no other test has, so that it is not compiled already."""
  predict('--images=photos', '--format=csv', '--config.data.image_size=31')
  assert '\ncompile  network: compiled ' in capfd.readouterr().err


def test_json_lines_in_a_file(run, expected, capfd):
  predict('--images=photos/**/*.png', '--output=out.jsonl')
  shown = capfd.readouterr()
  assert shown.out.count('\n') == 1
  assert 'step 7, 7 images' in shown.out
  text = pathlib.Path('out.jsonl').read_text(encoding='utf-8')
  lines = [json.loads(line) for line in text.splitlines()]
  assert {line['path'] for line in lines} == set(expected)
  for line in lines:
    for found, (label, probability) in zip(
      line['classes'], expected[line['path']], strict=False
    ):
      assert found['label'] == label
      assert found['class'] == CLASS_NAMES[label]
      assert found['probability'] == pytest.approx(probability, rel=1e-5)
    assert len(line['classes']) == 5
  assert sorted(os.listdir()) == ['out.jsonl', 'photos', 'run']


def test_a_list_on_stdin(run, expected, capfd, monkeypatch):
  names = list(expected)[::-1]
  monkeypatch.setattr('sys.stdin', io.StringIO('\n'.join(names) + '\n\n'))
  predict('--images=-', '--format=jsonl')
  lines = capfd.readouterr().out.splitlines()
  assert [json.loads(line)['path'] for line in lines] == names


@pytest.mark.parametrize('is_file', [False, True])
def test_bad_files_are_named_and_left_out(run, expected, capfd, is_file):
  (run / 'photos/bomb.png').write_bytes(huge_png())
  (run / 'photos/half.png').write_bytes(b'\x89PNG\r\n')
  images = '--images=photos/bomb.png,photos/0.png,photos/half.png,photos/1.png'
  predict(images, '--format=csv', *['--output=a.csv'] * is_file, code=65)
  shown = capfd.readouterr()
  text = pathlib.Path('a.csv').read_text() if is_file else shown.out
  rows = list(csv.DictReader(io.StringIO(text)))
  assert [row['path'] for row in rows] == ['photos/0.png', 'photos/1.png']
  for row in rows:
    label, probability = expected[row['path']][0]
    assert row['class_1'] == CLASS_NAMES[label]
    assert float(row['probability_1']) == pytest.approx(probability, rel=1e-5)
  assert problems(shown.err).splitlines() == [
    'warning: photos/bomb.png cannot be read: more than 134,217,728 pixels',
    'warning: photos/half.png cannot be read: not an image that Pillow '
    'can read',
    'error: 2 of 4 images could not be read, see the warnings above; the '
    'others are done',
  ]


def test_when_nothing_can_be_read_nothing_is_written(run, capfd):
  predict('--images=photos/notes.doc', '--output=out.csv', code=65)
  *_, last = capfd.readouterr().err.splitlines()
  assert last.startswith('error: none of 1 image could be read')
  assert sorted(os.listdir()) == ['photos', 'run']


BAD_INPUT = {
  'no images': ([], ['--images is missing', 'photos/*.jpg']),
  'no such image': (
    ['--images=photos/0.pgn'],
    ['--images=photos/0.pgn', "did you mean 'photos/0.png'"],
  ),
  'a name that is like no other': (
    ['--images=photos/holiday'],
    ['--images=photos/holiday: no such file\n'],
  ),
  'a pattern of nothing': (
    ['--images=photos/*.jpg'],
    ['--images=photos/*.jpg', 'no image found'],
  ),
  'a folder without images': (['--images=run'], ['--images=run', 'no image']),
  'no list on stdin': (['--images=-'], ['--images=-', 'stdin lists no file']),
  'no class': (['--images=photos', '--top_k=0'], ['--top_k=0', 'from 1']),
  'classes that are no number': (
    ['--images=photos', '--top_k=all'],
    ['top_k', 'all'],
  ),
  'unknown format': (
    ['--images=photos', '--format=cvs'],
    ['--format=cvs', "did you mean 'csv'", 'table, csv, jsonl'],
  ),
  'an output of no format': (
    ['--images=photos', '--output=out.xml'],
    ['--output=out.xml', '.csv', '--format=table|csv|jsonl'],
  ),
  'an output that is there': (
    ['--images=photos', '--output=photos/0.png', '--format=csv'],
    ['--output=photos/0.png', 'never overwritten'],
  ),
  'an output in no folder': (
    ['--images=photos', '--output=out/a.csv'],
    ['--output=out/a.csv', 'no writable folder out'],
  ),
  'no run': (['--images=photos', '--workdir=photos'], ['holds no run']),
  'no workdir': (['--images=photos', '--workdir='], ['--workdir is missing']),
  'a flag of another mode': (
    ['--images=photos', '--compare'],
    ['--compare is a flag of --mode=summary, not of --mode=predict\n'],
  ),
  'a flag of another mode that is like one': (
    ['--image=photos/0.png'],
    ["flag of --mode=visualize, not of --mode=predict, did you mean 'images'"],
  ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(run, capfd, monkeypatch, case):
  flags, words = BAD_INPUT[case]
  monkeypatch.setattr('sys.stdin', io.StringIO(''))
  before = sorted(run.rglob('*'))
  predict(*flags, code=2)
  shown = capfd.readouterr()
  assert shown.out == ''
  assert shown.err.startswith('error: ')
  assert shown.err.count('\n') == 1
  for word in words:
    assert word in shown.err
  assert sorted(run.rglob('*')) == before


def test_a_run_without_a_checkpoint(run, capfd):
  (run / 'run/checkpoints').rename(run / 'elsewhere')
  predict('--images=photos', '--output=a.csv', code=2)
  assert 'holds no checkpoint' in capfd.readouterr().err
  assert not (run / 'a.csv').exists()


def test_parameters_that_are_not_finite(run, capfd):
  path = run / 'run/checkpoints/step_000000007.npz'
  with np.load(path) as file:
    arrays = dict(file)
  arrays['params/logits/b'][0] = np.nan
  np.savez(path, **arrays)
  predict('--images=photos', '--output=a.csv', code=2)
  assert 'are not finite' in capfd.readouterr().err
  assert not (run / 'a.csv').exists()


def test_a_name_with_commas_and_control_characters(run, expected, capfd):
  name = 'photos/a,b\x1b[31m.png'
  os.rename('photos/0.png', name)
  predict(f'--images={name}')
  shown = capfd.readouterr().out
  assert shown.startswith('photos/a,b?[31m.png  ')
  assert f'{expected["photos/0.png"][0][1]:.4f}' in shown


def test_on_a_terminal_there_is_a_bar_and_pure_output(run):
  """As a process of its own: results to a pipe, the bar to a terminal."""
  main, terminal = pty.openpty()
  termios.tcsetwinsize(terminal, (24, 120))
  process = subprocess.Popen(
    [
      sys.executable,
      str(ROOT / 'launch.py'),
      '--mode=predict',
      '--workdir=run',
      '--images=photos',
      '--format=jsonl',
    ],
    stdout=subprocess.PIPE,
    stderr=terminal,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
    },
  )
  os.close(terminal)
  with process.stdout:
    out, shown = process.stdout.read().decode(), b''
  while True:
    try:
      chunk = os.read(main, 65536)
    except OSError:
      break
    if not chunk:
      break
    shown += chunk
  assert process.wait() == 0, shown
  assert len([json.loads(line) for line in out.splitlines()]) == NUM_PHOTOS
  assert '7/7' in shown.decode()
  net = googlenet.load('run')
  best = [json.loads(line)['classes'][0] for line in out.splitlines()]
  paths = [json.loads(line)['path'] for line in out.splitlines()]
  probabilities = net.predict(net.read(paths))
  np.testing.assert_allclose(
    [guess['probability'] for guess in best], probabilities.max(-1), rtol=1e-4
  )


def test_a_signal_leaves_no_file(run, monkeypatch, capfd):
  """SIGTERM within the writing of an output."""
  original = files.batches

  def batches(*args):
    for i, part in enumerate(original(*args)):
      if i:
        os.kill(os.getpid(), signal.SIGTERM)
      yield part

  monkeypatch.setattr(files, 'batches', batches)
  predict('--images=photos', '--output=a.csv', code=130)
  assert not list(run.glob('a.csv*'))
