"""What is shown: it ends no run, says what is done, and how far that is."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from conftest import ROOT, SMALL, load_config
from run_files import problems

from googlenet.data import batches, sources
from googlenet.errors import EXIT_CONTINUE, UserError
from googlenet.io.console import Console
from googlenet.io.metrics import Progress as RunProgress
from googlenet.model import variants
from googlenet.runtime import machine, progress, signals, streams, terminal
from googlenet.train import messages
from googlenet.train.profiling import Profile

CONFIG = f'--config={ROOT}/configs/fmnist96.py'
# Becomes bash with the arguments. The tests may run under nohup, which has the
# signal ignored.
HEARS_HUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execvp('bash', ['bash', *sys.argv[1:]])
"""
LAUNCH = (sys.executable, str(ROOT / 'launch.py'))


def ascii_like() -> io.TextIOWrapper:
  return io.TextIOWrapper(io.BytesIO(), encoding='ascii')


def test_what_an_encoding_lacks_is_escaped_and_bytes_of_names_stay():
  reading, writing = os.pipe()
  stream = streams.make(writing, like=ascii_like())
  print('läufe ☃', os.fsdecode(b'l\xe4ufe'), file=stream, flush=True)
  streams.check(stream)
  os.close(writing)
  with open(reading, 'rb') as file:
    assert file.read() == b'l\\xe4ufe \\u2603 l\xe4ufe\n'


@pytest.mark.parametrize('is_direct', [False, True], ids=['', 'python -u'])
def test_a_reader_that_ends_is_known_by_who_asks(is_direct):
  reading, writing = os.pipe()
  like = io.TextIOWrapper(io.BytesIO(), write_through=is_direct)
  stream = streams.make(writing, like=like)
  os.close(reading)
  for _ in range(3):
    print('a', file=stream, flush=True)
  with pytest.raises(streams.ReaderGoneError) as error:
    streams.check(stream)
  assert error.value.exit_code == 141
  os.close(writing)


def test_a_full_disk_is_known_by_who_asks():
  with open('/dev/full', 'wb') as file:
    stream = streams.make(file.fileno())
    print('a', file=stream, flush=True)
    with pytest.raises(OSError, match='No space left'):
      streams.check(stream)


# How the streams of a shell are set up, the exit code, what stderr holds.
SHELLS = {
  'stdout closed': ('exec "$@" >&-', 0, ''),
  'all closed': ('exec "$@" <&- >&- 2>&-', 0, ''),
  'no reader': ('"$@" | true; exit ${PIPESTATUS[0]}', 141, ''),
  'a full disk': (
    'exec "$@" >/dev/full',
    74,
    'error: stdout cannot be written (No space left on device): free disk '
    'space, then give the same command again\n',
  ),
  'ascii': ('PYTHONIOENCODING=ascii exec "$@" >/dev/null', 0, ''),
}


@pytest.mark.parametrize('case', SHELLS)
def test_help_on_any_stream(case):
  script, code, stderr = SHELLS[case]
  done = subprocess.run(
    ['bash', '-c', script, 'bash', *LAUNCH, '--help'],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert (done.returncode, done.stderr) == (code, stderr)


def run_with(
  folder, module: str, code: str, *flags: str, shell: str = 'exec "$@"'
) -> subprocess.CompletedProcess:
  """Runs launch.py with code in place of a module that it imports."""
  (folder / module).mkdir()
  (folder / module / '__init__.py').write_text(code)
  return subprocess.run(
    [sys.executable, '-c', HEARS_HUP, '-c', shell, 'bash', *LAUNCH, *flags],
    env={**os.environ, 'PYTHONPATH': str(folder)},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  ('flags', 'shown'),
  [
    ([CONFIG], f'train {ROOT}/configs/fmnist96.py'),
    (['--mode=evaluate', '--workdir=runs/a'], 'evaluate runs/a'),
    (['--mode=sweep', CONFIG, '--workdir=runs/a'], 'sweep runs/a'),
    (['--mode=predict'], 'predict'),
  ],
  ids=['train', 'evaluate', 'sweep', 'predict'],
)
def test_a_mode_says_what_it_does_before_the_slow_imports(
  tmp_path, flags, shown
):
  done = run_with(tmp_path, 'jax', 'raise SystemExit(9)', *flags)
  assert done.returncode == 9
  assert done.stdout == ''
  assert done.stderr == f'mode     {shown}: loading JAX\n'
  assert problems(done.stderr) == ''


@pytest.mark.parametrize(
  ('name', 'shell', 'code'),
  [
    ('SIGINT', 'exec "$@"', -signal.SIGINT),
    ('SIGTERM', 'exec "$@"', EXIT_CONTINUE),
    ('SIGHUP', 'exec "$@"', EXIT_CONTINUE),
    ('SIGHUP', 'trap "" HUP; exec "$@"', 9),  # nohup: it is ignored
  ],
  ids=['SIGINT', 'SIGTERM', 'SIGHUP', 'nohup'],
)
def test_signals_during_the_first_import(tmp_path, name, shell, code):
  send = (
    f'import os, signal\nos.kill(os.getpid(), signal.{name})\n'
    'raise SystemExit(9)\n'
  )
  done = run_with(tmp_path, 'absl', send, CONFIG, shell=shell)
  assert (done.returncode, done.stderr) == (code, '')


def test_the_exit_code_of_early_signals_is_that_of_later_ones():
  assert signals._EXIT_CONTINUE == EXIT_CONTINUE


def test_a_clock_that_jumps_changes_no_duration(monkeypatch):
  started = time.monotonic()
  monkeypatch.setattr(time, 'time', lambda: 4e9)
  assert 0 <= RunProgress().to_json(started)['seconds'] < 3600


class Screen:
  """A pseudo-terminal of 0 columns, as some programs make it."""

  def __init__(self):
    self._main, terminal = pty.openpty()
    self.stream = open(terminal, 'w', encoding='utf-8')  # noqa: SIM115

  def text(self) -> str:
    """Closes the terminal; returns all that was shown."""
    self.stream.close()
    shown = b''
    try:
      while chunk := os.read(self._main, 65536):
        shown += chunk
    except OSError:  # Linux: the other end is closed
      pass
    os.close(self._main)
    return shown.decode()


@pytest.fixture
def screen():
  return Screen()


def test_a_terminal_of_0_columns_shows_a_bar(screen):
  console = Console(screen.stream, 8)
  console.progress(2, 0.5, {'loss': 1.5, 'accuracy': 0.25}, 10.0)
  console.close()
  assert re.search(r' 25%\|[^|]+\| 2/8  loss 1.500  accuracy', screen.text())


def count_to_3(**options) -> None:
  with progress.Progress('images   toys', 3, 'batches', **options) as shown:
    for _ in range(3):
      shown.update()


def test_a_bar_on_a_terminal_is_gone_at_the_end(screen):
  with progress.shown_on(screen.stream):
    count_to_3()
  text = screen.text()
  assert re.search(r'images   toys 100%\|.+\| 3/3 batches, 00:00 left', text)
  assert re.search(r'\r +\r$', text)


def test_lines_where_there_is_no_terminal():
  stream = io.StringIO()
  with progress.shown_on(stream):
    count_to_3(line_seconds=0)
    count_to_3()  # done before a line is due
  assert stream.getvalue() == (
    'images   toys: 1/3 batches, ? left\n'
    'images   toys: 2/3 batches, 00:00 left\n'
    'images   toys: 3/3 batches, 00:00 left\n'
  )


def test_work_without_parts_is_told_again_and_again():
  stream = io.StringIO()
  said = False
  with (
    progress.shown_on(stream),
    progress.working('compile  it', line_seconds=0.001),
  ):
    while not said:
      said = ': 0 s so far' in stream.getvalue()
  assert stream.getvalue().startswith('compile  it\ncompile  it: 0 s so far\n')


def test_a_signal_is_told_while_something_compiles(screen):
  with progress.shown_on(screen.stream), progress.working('compile  it'):
    thread = threading.Thread(
      target=terminal.tell, args=('SIGTERM: ...', screen.stream), daemon=True
    )
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
  assert 'compile  it\r\nSIGTERM: ...\r\n' in screen.text()


def test_reading_and_evaluating_a_set_are_shown(screen):
  def read(indices, epoch=0):
    return np.zeros((len(indices), 2, 2, 1), np.uint8), np.zeros(len(indices))

  toys = sources.Dataset('toys', 'test', 6, (2, 2, 1), 1, ('toy',), read)
  with progress.shown_on(screen.stream):
    feed = batches.make_pipeline(toys, 1, 1, 0)
    assert len(list(batches.eval_batches(feed, 3))) == 2
  text = screen.text()
  assert re.search(r'read     toys test 100%\|', text)
  assert re.search(r'images   toys test 100%\|.+\| 2/2 batches', text)


def test_an_error_removes_the_bars_that_work_has_left(screen):
  with progress.shown_on(screen.stream):
    left = progress.counted([1, 2], 2, 'images   toys', 'batches')
    next(left)
    terminal.remove_bars()
    print('error: it', file=screen.stream)
  assert re.search(r'\r +\rerror: it\r\n$', screen.text())


@pytest.mark.parametrize('name', ['prefer', 'läufe'])
def test_names_that_cpp_takes(name):
  assert streams.is_text(name)
  assert not streams.is_text(os.fsdecode(name.encode() + b'\xe4'))


@pytest.mark.parametrize(
  ('kernels', 'chosen', 'steps', 'most'),
  [
    ('auto', 'onednn', 3, 3),
    ('auto', 'onednn', 4, None),
    ('auto', 'cpu', 14, 14),
    ('auto', 'cpu', 15, None),
    ('auto', 'xla', 1, None),
    ('onednn', 'onednn', 1, None),  # chosen by the user
  ],
)
def test_short_runs_name_the_kernels_that_are_done_sooner(
  kernels, chosen, steps, most
):
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.kernels = kernels
  space = types.SimpleNamespace
  run = space(
    config=config,
    network=space(
      kernels=space(name=chosen), architecture=variants.resolve(config.model)
    ),
    durations=space(num_steps=steps),
    train=space(dataset=space(image_shape=(28, 28, 1))),
  )
  lines = messages.short_run(run)
  assert lines == (
    [
      f'hint     up to {most} steps are done sooner with '
      '--config.model.kernels=xla, which compiles faster and computes slower'
    ]
    if most
    else []
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  'shell',
  [
    'exec "$@" >&- 2>&-',
    'exec "$@" >/dev/full 2>/dev/full',
    '"$@" | true; exit ${PIPESTATUS[0]}',
    'LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 exec "$@"',
    'PYTHONIOENCODING=ascii exec "$@"',
  ],
  ids=['closed', 'full disk', 'no reader', 'C', 'ascii'],
)
def test_a_run_is_ended_by_nothing_that_is_shown(
  tmp_path, compilation_cache, shell
):
  """In a folder whose name is UTF-8, and in one whose name is not."""
  flags = (
    *SMALL,
    CONFIG,
    f'--config.train.compilation_cache={compilation_cache}',
  )
  for name in ('läufe'.encode(), b'l\xe4ufe'):
    workdir = os.fsencode(tmp_path) + b'/' + name
    done = subprocess.run(
      ['bash', '-c', shell, 'bash', *LAUNCH, *flags, b'--workdir=' + workdir],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
      capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b'Traceback' not in done.stderr
    with open(workdir + b'/result.json') as file:
      assert json.load(file)['step'] == 6


def test_a_trace_to_a_name_that_is_not_utf_8_is_refused():
  session = types.SimpleNamespace(
    run=types.SimpleNamespace(traced_steps=range(3, 4)), first_step=1
  )
  with pytest.raises(UserError, match='profile_steps=1: a trace cannot be'):
    Profile(session, os.fsdecode(b'l\xe4ufe'), print)
  Profile(session, 'läufe', print)


def test_a_cache_whose_name_is_not_utf_8_is_refused(tmp_path):
  folder = str(tmp_path / os.fsdecode(b'l\xe4ufe'))
  with pytest.raises(UserError, match='its name is not UTF-8 text'):
    machine.tune_machine(folder)
  assert not os.path.exists(folder)


def test_a_stream_that_does_not_block_loses_nothing():
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  text = 'a' * 300_000  # more than a pipe holds
  with open(reading, encoding='utf-8') as file:
    thread = threading.Thread(
      target=lambda: print(text, end='', file=stream, flush=True), daemon=True
    )
    stream = streams.make(writing)
    thread.start()
    assert file.read(len(text)) == text
    thread.join(timeout=60)
  streams.check(stream)
  os.close(writing)


@pytest.mark.slow
def test_a_tool_whose_table_nobody_reads():
  trial = str(ROOT / 'pretrained/fmnist28_fast')
  done = subprocess.run(
    ['bash', '-c', '"$@" | true; exit ${PIPESTATUS[0]}', 'bash']
    + [sys.executable, '-m', 'googlenet.tools.trials', trial],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (141, '')
