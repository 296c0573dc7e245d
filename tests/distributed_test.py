"""Several processes as one run: real ones, on this machine."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from conftest import ROOT, environment
from run_files import losses, problems

from googlenet.errors import UserError
from googlenet.io import checkpoint
from googlenet.runtime import distributed, supervisor
from googlenet.runtime.distributed import Address, check_address, complete

FLAGS = (
  f'--config={ROOT}/configs/fmnist96.py',
  '--config.model.variant=tiny',
  '--config.model.kernels=xla',
  '--config.data.image_size=28',
  '--config.data.eval_split=test[:1000]',
  '--config.train.batch_size=64',
  '--config.train.precision=float32',
  '--config.logging.every_steps=1',
  '--config.augment.flip=true',
)


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


class Processes:
  """Processes of one run, each with the same number of devices."""

  def __init__(self, folder, cache, count, devices, *flags, last=()):
    port, self.all, self.folder = free_port(), [], folder
    for i in range(count):
      distributed = (
        f'--coordinator_address=127.0.0.1:{port}',
        f'--num_processes={count}',
        f'--process_id={i}',
      )
      self.all.append(
        subprocess.Popen(
          [
            sys.executable,
            str(ROOT / 'launch.py'),
            *FLAGS,
            f'--config.train.compilation_cache={cache}',
            *(distributed if count > 1 else ()),
            *flags,
            *(last if i == count - 1 else ()),
          ],
          cwd=folder,
          env={**os.environ, **environment(devices, optimized=False)},
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
        )
      )

  def wait(self, code: int = 0) -> list[tuple[str, str]]:
    """Returns what each has printed; all have to end with a code."""
    ends = [process.communicate() for process in self.all]
    for process, (_, err) in zip(self.all, ends, strict=True):
      assert process.returncode == code, err
    return ends

  def wait_for(self, text: str) -> None:
    """Waits until the first process, which shows the run, prints a text."""
    for line in self.all[0].stdout:
      if text in line:
        return
    pytest.fail(self.all[0].communicate()[1])


@pytest.fixture
def start(tmp_path, compilation_cache):
  started = []

  def start(*args, **options):
    processes = Processes(tmp_path, compilation_cache, *args, **options)
    started.extend(processes.all)
    return processes

  yield start
  for process in started:
    if process.poll() is None:
      process.kill()
    process.communicate()


# No process is silent here; machines that run tests may be.
PATIENT = '--heartbeat_timeout_seconds=600'


@pytest.mark.parametrize('place', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_whose_peer_never_comes_ends_with_one_line(tmp_path, place):
  port = free_port()
  done = subprocess.run(
    [
      sys.executable,
      str(ROOT / 'launch.py'),
      *FLAGS,
      f'--coordinator_address=127.0.0.1:{port}',
      '--num_processes=2',
      f'--process_id={place}',
      '--heartbeat_timeout_seconds=1',
      '--workdir=alone',
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 75
  (line,) = problems(done.stderr).splitlines()
  assert line.startswith(f'error: this process ({place} of 2) has waited 1 s')
  assert f'127.0.0.1:{port}' in line
  assert not list(tmp_path.iterdir())


def test_two_processes_are_one_run_and_go_on_as_one_process(
  start, launch_here, tmp_path
):
  """Four steps on two devices each, the rest on one: as on one all along."""
  half, steps = (f'--config.train.max_steps={n}' for n in (4, 8))
  ends = start(2, 2, half, PATIENT, '--workdir=two').wait()
  assert '4 x cpu (cpu), 2 process(es)' in ends[0][0]
  assert 'step 4/4' in ends[0][0]
  assert 'step 4/4' not in ends[1][0]
  done = launch_here(*FLAGS, steps, '--allow_config_change', '--workdir=two')
  assert done.returncode == 0, done.stderr
  assert 'resumed  after step 4' in done.stdout
  done = launch_here(*FLAGS, steps, '--workdir=one')
  assert done.returncode == 0, done.stderr
  one = losses(tmp_path / 'one')
  assert one.shape == (8, 2)
  np.testing.assert_allclose(losses(tmp_path / 'two'), one, rtol=2e-4)
  with (
    np.load(tmp_path / 'two/checkpoints/step_000000008.npz') as file,
    np.load(tmp_path / 'one/checkpoints/step_000000008.npz') as expected,
  ):
    for key in set(file.files) - {'about', 'progress'}:
      np.testing.assert_allclose(file[key], expected[key], rtol=1e-3, atol=1e-5)


# As many epochs as above: the program is the same, and compiled already.
LONG = (
  '--config.train.max_steps=9000',
  '--config.logging.every_steps=10',
  '--config.checkpoint.every_steps=5',
  '--workdir=run',
)


@pytest.mark.slow  # compiling alone is 10 s
def test_two_processes_with_the_kernels_of_this_machine(start, tmp_path):
  """Programs that are compiled with options take local arrays all the same."""
  flags = ('--config.model.kernels=auto', '--config.train.max_steps=3')
  start(1, 2, *flags, '--workdir=one').wait()
  start(2, 1, *flags, PATIENT, '--workdir=two').wait()
  np.testing.assert_allclose(
    losses(tmp_path / 'two'), losses(tmp_path / 'one'), rtol=2e-4
  )


@pytest.mark.slow
def test_two_processes_with_shard_map(start, tmp_path):
  """They make the run that one process makes with `jax.pmap`.

  Measured, the losses were equal to the bit; with more devices the order of
  sums between processes may differ.
  """
  flags = (
    '--config.model.normalization=batch',
    '--config.model.dropout=0.3',
    '--config.train.ema_decay=0.9',
    '--config.train.max_steps=4',
    '--config.eval.batch_norm_batches=2',
  )
  start(1, 2, *flags, '--workdir=one').wait()
  twin = '--config.train.parallel=shard_map'
  start(2, 1, *flags, twin, PATIENT, '--workdir=two').wait()
  one, two = (tmp_path / name for name in ('one', 'two'))
  np.testing.assert_allclose(losses(two), losses(one), rtol=1e-4)
  name = 'checkpoints/step_000000004.npz'
  with np.load(two / name) as file, np.load(one / name) as expected:
    for key in set(file.files) - {'about', 'progress'}:
      np.testing.assert_allclose(file[key], expected[key], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('how', ['pmap', 'shard_map'])
def test_one_of_two_processes_names_the_layer_that_is_not_finite(start, how):
  flags = (
    '--config.optimizer.learning_rate=1e30',
    '--config.optimizer.grad_clip_norm=0',
    '--config.optimizer.warmup_steps=0',
    '--config.train.max_steps=6',
    f'--config.train.parallel={how}',
    '--workdir=run',
  )
  processes = start(2, 2, *flags, PATIENT).all
  errors = [process.communicate()[1] for process in processes]
  codes = [process.returncode for process in processes]
  # JAX ends the slower process with the faster one, if it is still looking.
  assert 2 in codes, errors
  assert set(codes) <= {2, 75}, errors
  for code, error in zip(codes, errors, strict=True):
    if code == 2:
      assert '(first ' in error.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize('dies', [0, 1])
def test_when_one_dies_the_other_ends_with_a_line(start, tmp_path, dies):
  processes = start(2, 2, *LONG, '--heartbeat_timeout_seconds=10')
  processes.wait_for('step 10/')
  processes.all[dies].kill()
  killed = time.monotonic()
  survivor = processes.all[1 - dies]
  _, err = survivor.communicate()
  print(f'ended after {time.monotonic() - killed:.1f} s')
  assert survivor.returncode == 75, err
  last = err.splitlines()[-1]
  assert last.startswith('error: this process')
  assert 'the run goes on from its last checkpoint' in last
  assert 'Traceback' not in err
  assert checkpoint.paths(tmp_path / 'run')
  again = start(1, 1, *LONG)
  again.wait_for('resumed  after step')


def test_the_last_line_is_ours():
  """What threads of C++ write to the descriptor comes to nothing."""
  program = (
    'import os, sys\n'
    'from googlenet.runtime.distributed import silence_threads\n'
    'os.write(2, b"before\\n")\n'
    'silence_threads()\n'
    'print("error: ours, é", file=sys.stderr)\n'
    'os.write(2, b"trace\\n")\n'
    'os._exit(3)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=ROOT,
    env={**os.environ, 'PYTHONIOENCODING': 'utf-8'},
    capture_output=True,
    check=False,
  )
  assert done.returncode == 3
  assert done.stderr.decode() == 'before\nerror: ours, é\n'


def test_a_signal_to_one_ends_all_at_the_same_step(start, tmp_path):
  processes = start(2, 2, *LONG, PATIENT)
  processes.wait_for('step 10/')
  processes.all[1].send_signal(signal.SIGTERM)
  ends = processes.wait(75)
  lines = [err.splitlines()[-1] for _, err in ends]
  assert 'a signal to another process after step' in lines[0]
  assert 'ended on SIGTERM after step' in lines[1]
  assert lines[0].partition('after')[2] == lines[1].partition('after')[2]


@pytest.mark.slow
def test_other_layouts_and_back(start, tmp_path):
  steps, half = (f'--config.train.max_steps={n}' for n in (20, 10))
  change = '--allow_config_change'
  start(1, 1, steps, '--workdir=one').wait()
  start(1, 4, steps, '--workdir=four').wait()
  start(2, 2, steps, PATIENT, '--workdir=two').wait()
  start(2, 2, half, PATIENT, '--workdir=to_one').wait()
  start(1, 1, steps, change, '--workdir=to_one').wait()
  start(4, 1, half, PATIENT, '--workdir=to_two').wait()
  start(2, 2, steps, change, PATIENT, '--workdir=to_two').wait()
  start(1, 4, half, '--workdir=from_one').wait()
  start(2, 2, steps, change, PATIENT, '--workdir=from_one').wait()
  one = losses(tmp_path / 'one')
  for name in ('four', 'two', 'to_one', 'to_two', 'from_one'):
    np.testing.assert_allclose(losses(tmp_path / name), one, rtol=2e-4)


def test_bad_input_is_told_by_all_and_hangs_none(start, tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run/metrics.jsonl').touch()
  ends = start(2, 2, '--workdir=run', PATIENT).wait(2)
  for _, err in ends:
    assert err.splitlines()[-1].startswith('error: --workdir=run already holds')


SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'node[1-4]',
  'SLURM_NTASKS': '4',
  'SLURM_PROCID': '3',
  'SLURM_LOCALID': '0',
}
TPU = {'TPU_WORKER_ID': '0'}
OMPI = {'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': '1'}


@pytest.mark.parametrize(
  ('count', 'address', 'environment', 'expected'),
  [
    (None, None, {}, False),
    (None, None, SLURM, True),
    (None, None, {**SLURM, 'SLURM_NTASKS': '1'}, False),
    (1, None, SLURM, False),
    # A batch script, outside of srun.
    (None, None, {k: v for k, v in SLURM.items() if 'STEP' not in k}, False),
    (None, None, OMPI, True),
    (None, None, {**OMPI, 'OMPI_COMM_WORLD_SIZE': '1'}, False),
    (None, None, TPU | {'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
    (None, None, TPU | {'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
    (None, None, {'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, False),
    (None, 'a:1', {}, True),
    (2, None, {}, True),
  ],
)
def test_launchers_are_found(count, address, environment, expected):
  found = supervisor.is_one_of_several(count, address, environment)
  assert found is expected


def test_number_and_place_come_from_the_launcher():
  address = complete(Address('node1:1', None, None), OMPI)
  assert address == ('node1:1', 2, 1)
  assert complete(Address('node1:1', None, None), SLURM) == ('node1:1', 4, 3)
  assert complete(Address('node1:1', 3, 0), OMPI) == ('node1:1', 3, 0)
  assert complete(Address(None, None, None), OMPI) == (None, None, None)
  unset = {'SLURM_NTASKS': '', 'SLURM_PROCID': ''}
  assert complete(Address('a:1', 2, None), unset) == ('a:1', 2, None)
  assert complete(Address('a:1', None, None), unset | OMPI) == ('a:1', 2, 1)


@pytest.mark.parametrize('text', ['two', '-1', '1.0', '²'])
def test_a_number_of_a_launcher_that_is_none(text):
  wrong = OMPI | {'OMPI_COMM_WORLD_SIZE': text}
  with pytest.raises(UserError, match=f'OMPI_COMM_WORLD_SIZE={text!r}'):
    complete(Address('a:1', None, None), wrong)


def test_a_place_alone_is_refused_where_nobody_counts_the_processes():
  check_address(Address(None, None, 1), SLURM)
  check_address(Address(None, 1, 0), {})  # as a script for N processes has it
  with pytest.raises(UserError, match='--process_id=1 is given alone'):
    check_address(Address(None, None, 1), {})


@pytest.mark.parametrize(
  ('error', 'code', 'words'),
  [
    (PermissionError(errno.EACCES, 'Permission denied', 'a'), 2, 'Permission'),
    (OSError(errno.ENOSPC, 'No space left', 'a'), 74, 'a cannot be written'),
    (UserError('is wrong'), 2, 'is wrong'),
  ],
)
def test_an_error_of_process_0_is_raised_by_all(
  monkeypatch, error, code, words
):
  """Else the others would wait for a value that never comes."""
  sent = []

  def fail():
    raise error

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(distributed, 'broadcast', lambda x: sent.append(x) or x)
  for place in (0, 1):
    monkeypatch.setattr(jax, 'process_index', lambda place=place: place)
    with pytest.raises(UserError, match=words) as raised:
      distributed.on_process_0(fail)
    assert raised.value.exit_code == code
    monkeypatch.setattr(distributed, 'broadcast', lambda _: sent.pop(0))


def test_how_a_child_ended(capfd):
  assert supervisor.exit_code(2) == 2
  assert supervisor.exit_code(-signal.SIGABRT) == 75
  assert 'another process of the run has died' in capfd.readouterr().err
  assert supervisor.exit_code(-signal.SIGKILL) == 75
  assert 'SIGKILL: it was killed' in capfd.readouterr().err
