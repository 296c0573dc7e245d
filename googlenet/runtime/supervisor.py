"""A parent for each process of a run of several, to say how it ended.

When one process dies, JAX ends the others from C++, with SIGABRT and a page of
its internals; no line of Python runs after that. So a child does the work, and
this process, which does not import JAX, says in a line how the child ended. It
passes on the signals it gets; a child whose parent is killed is killed too. A
run of one process has no supervisor.
"""

import ctypes
import glob
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from googlenet.errors import EXIT_CONTINUE
from googlenet.runtime import signals
from googlenet.runtime.terminal import tell_error

_CHILD = 'GOOGLENET_SUPERVISED'
_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 1.0
# How each launcher says that it has started several processes: variables that
# must be set, and one that counts or lists the processes. JAX looks at the same
# ones (jax/_src/clusters).
_LAUNCHERS = (
  (('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID'), 'SLURM_NTASKS'),
  (('OMPI_COMM_WORLD_RANK',), 'OMPI_COMM_WORLD_SIZE'),
  (('TPU_WORKER_ID',), 'TPU_WORKER_HOSTNAMES'),
  (('TPU_WORKER_ID',), 'TPU_PROCESS_ADDRESSES'),
  (('MEGASCALE_SLICE_ID',), 'MEGASCALE_NUM_SLICES'),
)


def in_cluster(environment: Mapping[str, str]) -> bool:
  """Returns whether a launcher says that there are several processes."""
  for names, count in _LAUNCHERS:
    value = environment.get(count, '')
    if all(name in environment for name in names) and (
      ',' in value or (value.isdigit() and int(value) > 1)
    ):
      return True
  # The pod of an indexed job asks the cluster for the number, by a package.
  if {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= environment.keys():
    return importlib.util.find_spec('kubernetes') is not None
  # A machine of a TPU pod asks its metadata server.
  return (
    importlib.util.find_spec('libtpu') is not None
    and 'TPU_SKIP_MDS_QUERY' not in environment
    and 'tpu' in (environment.get('JAX_PLATFORMS') or 'tpu')
    and bool(glob.glob('/dev/accel[0-9]*') or glob.glob('/dev/vfio/[0-9]*'))
  )


def is_one_of_several(
  num_processes: int | None,
  coordinator_address: str | None,
  environment: Mapping[str, str],
) -> bool:
  """Returns whether this process belongs to a run of several.

  Args:
    num_processes: the flag. 1 says no, whatever the launcher does: a launcher
      may start several runs side by side.
    coordinator_address: the flag.
    environment: variables of the process.
  """
  if num_processes is not None:
    return num_processes != 1
  return bool(coordinator_address) or in_cluster(environment)


def supervise(is_alone: bool) -> None:
  """Lets a child do the work of this process, if it is one of several.

  Returns in the child, and where there is one process alone. Otherwise this
  process waits for the child and ends with its exit code.
  """
  if parent := os.environ.pop(_CHILD, ''):
    _end_with(int(parent))
    return
  if is_alone:
    return
  child = start_child([sys.executable, *sys.orig_argv[1:]])
  for number in signals.asking_to_end():
    signal.signal(number, lambda n, _: pass_on(n, child))
  sys.exit(exit_code(child.wait()))


def _end_with(parent: int) -> None:
  """Ends this process as soon as its parent has ended, however it did."""
  try:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  except (AttributeError, OSError, TypeError):  # not Linux

    def watch() -> None:  # on Windows in vain: it tells of no new parent
      while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
      os._exit(EXIT_CONTINUE)

    threading.Thread(target=watch, daemon=True).start()
  if os.getppid() != parent:  # it ended before that was set
    os._exit(EXIT_CONTINUE)


def pass_on(number: int, child: subprocess.Popen) -> None:
  """Passes a signal on to a child.

  On Windows Ctrl-C has reached the child already, and cannot be sent.
  """
  if number != signal.SIGINT or os.name != 'nt':
    child.send_signal(number)


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen:
  """Starts launch.py as a process that lives no longer than this one.

  Args:
    command: ends in launch.py and its flags. It gets signals from this process
      only, and is killed when this process is.
    **options: of `subprocess.Popen`.
  """
  return subprocess.Popen(
    command,
    env={**os.environ, _CHILD: str(os.getpid())},
    process_group=0,  # signals of a terminal come once, from here
    **options,
  )


def exit_code(returncode: int) -> int:
  """Returns the exit code for a child's return code; tells of a crash."""
  if returncode >= 0:
    return returncode
  name = signal.Signals(-returncode).name
  why = (
    'another process of the run has died or cannot be reached'
    if returncode == -signal.SIGABRT
    else 'it was killed'
  )
  tell_error(
    f'this process of the run was ended by {name}: {why}; start all of them '
    'again with the same --workdir, and the run goes on from its last '
    'checkpoint'
  )
  return EXIT_CONTINUE
