"""Processes of the benchmark: what they tell, the time limit, their end."""

import os
import signal
import subprocess
import sys

import pytest
from benchmark_stubs import Pulse, stub
from conftest import ROOT

from googlenet.tools.benchmark import process

LONG = 120.0  # seconds that no test takes


def run(contender, tell=lambda message: None, **options):
  """Runs a stub and returns its report."""
  report = {}

  def told(message):
    process.merge(report, message)
    tell(message)

  process.run(contender, LONG, told, **options)
  return report


def test_a_process_gets_its_job_and_environment(tmp_path):
  """What a library writes to stdout is no result."""
  report = run(stub(tmp_path, 'noise'))
  assert report.pop('started') > 0
  assert report == {'sizes': {}, 'what': 'noise', 'x': 'y'}


@pytest.mark.parametrize(
  ('what', 'expected'),
  [
    ('killed', {'error': 'ended by signal 9 (out of memory?)'}),
    (
      'raises',
      {
        'sizes': {'4': {'train_images_per_s': 7.0}},
        'error': 'exit code 1: ValueError: no compiler',
      },
    ),
    ('refuses', {'error': 'config.x: no', 'is_bad_input': True}),
    ('is silent', {'error': 'exit code 0: '}),
  ],
)
def test_a_process_that_fails_says_why(tmp_path, what, expected):
  assert run(stub(tmp_path, what)) == {'sizes': {}, **expected}


def test_a_program_that_is_not_there(tmp_path):
  contender = stub(tmp_path, 'noise')._replace(command=['/nowhere/python'])
  assert 'No such file' in run(contender)['error']


def test_results_are_told_as_they_come(tmp_path):
  """The stub goes on when its first result has been told, and not before."""
  pipe = str(tmp_path / 'go')
  os.mkfifo(pipe)
  told = []

  def tell(message):
    if not told:
      with open(pipe, 'wb'):
        pass
    told.append(message)

  report = run(stub(tmp_path, 'waits', pipe=pipe), tell)
  sizes = [message['sizes']['4'] for message in told]
  assert sizes == [{'train_images_per_s': 7.0}, {'infer_images_per_s': 9.0}]
  assert report == {'sizes': {'4': sizes[0] | sizes[1]}}


class Clock:
  """Stands still until the first size is told, then is past the limit."""

  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now

  def tell(self, message):
    if 'sizes' in message:
      self.now = LONG + 1


def test_a_process_is_cut_off_and_what_it_measured_stays(tmp_path):
  pulse, clock = Pulse(tmp_path), Clock()
  report = run(
    stub(tmp_path, 'hangs', pipe=pulse.path), clock.tell, clock=clock
  )
  pulse.assert_both_were_there_and_are_gone()
  assert report['sizes'] == {
    '4': {'train_images_per_s': 7.0, 'peak_bytes': 2**30}
  }
  assert report['is_cut_off']
  assert report['error'].startswith(
    'cut off after 120 s (config.benchmark.seconds)'
  )


def test_what_a_process_leaves_behind_is_killed(tmp_path):
  """It holds stdout: who waited for the end of that would wait for ever."""
  pulse = Pulse(tmp_path)
  report = run(stub(tmp_path, 'leaves', pipe=pulse.path))
  pulse.assert_both_were_there_and_are_gone()
  assert 'error' not in report


def test_an_exception_kills_the_process(tmp_path):
  """As Ctrl-C does, wherever it comes."""
  pulse = Pulse(tmp_path)

  def tell(message):
    if 'sizes' in message:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run(stub(tmp_path, 'hangs', pipe=pulse.path), tell)
  pulse.assert_both_were_there_and_are_gone()


PARENT = """
import pathlib, sys
from benchmark_stubs import stub
from googlenet.tools.benchmark import process
folder = pathlib.Path(sys.argv[1])
process.run(stub(folder, 'hangs', pipe=sys.argv[2]), 600,
            lambda message: print(message, flush=True))
"""


def test_no_process_outlives_one_that_is_killed(tmp_path):
  pulse = Pulse(tmp_path)
  paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests/tools')])
  parent = subprocess.Popen(
    [sys.executable, '-c', PARENT, str(tmp_path), pulse.path],
    env={**os.environ, 'PYTHONPATH': paths},
    stdout=subprocess.PIPE,
    text=True,
  )
  with parent:
    while 'sizes' not in parent.stdout.readline():
      assert parent.poll() is None
    parent.kill()
    assert parent.wait() == -signal.SIGKILL
    pulse.assert_both_were_there_and_are_gone()
