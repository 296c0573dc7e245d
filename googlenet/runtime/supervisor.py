"""A parent for each process of a run of several, to say how it ended.

When one process dies JAX ends the others from C++, with SIGABRT and a page of
its internals; no line of Python runs after that. So a child does the work, and
this process, which does not import JAX, says in a line what became of it. It
passes on the signals it gets, and a child whose parent is killed is killed too.
"""

import ctypes
import glob
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_CONTINUE = 75  # EX_TEMPFAIL of sysexits.h: the same command goes on
_CHILD = 'GOOGLENET_SUPERVISED'
_PR_SET_PDEATHSIG = 1
# What says, for each launcher, that it has started several processes: variables
# that have to be there, and one that counts or lists them. They are those that
# JAX looks at (jax/_src/clusters).
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
  # The pod of an indexed job asks the cluster how many there are, by a package.
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
  argv: Sequence[str], environment: Mapping[str, str]
) -> bool:
  """Returns whether this command line, here, is of a run of several.

  --num_processes=1 says that it is not, whatever the launcher does: several
  runs may be started side by side by one.
  """
  given = {}
  for i, arg in enumerate(argv):
    name, equals, value = arg.partition('=')
    given[name.lstrip('-')] = value if equals else ''.join(argv[i + 1 : i + 2])
  if 'num_processes' in given:
    return given['num_processes'] != '1'
  return 'coordinator_address' in given or in_cluster(environment)


def supervise() -> None:
  """Does the work in a child if this is one of several processes.

  Returns in the child, and where there is one process alone; else this
  process ends here, with the exit code of the child.
  """
  if parent := os.environ.pop(_CHILD, ''):
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # it was killed before that was set
      os._exit(EXIT_CONTINUE)
    return
  if not is_one_of_several(sys.argv[1:], os.environ):
    return
  child = start_child([sys.executable, *sys.orig_argv[1:]])
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda n, _: child.send_signal(n))
  sys.exit(exit_code(child.wait()))


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen:
  """Starts launch.py as a process that gets signals from this one alone, and
  that is killed when this one is.

  Args:
    command: ends in launch.py and its flags.
    **options: of `subprocess.Popen`.
  """
  return subprocess.Popen(
    command,
    env={**os.environ, _CHILD: str(os.getpid())},
    process_group=0,  # signals of a terminal come once, from here
    **options,
  )


def exit_code(returncode: int) -> int:
  """Returns what to exit with for what a child ended with; tells of a crash."""
  if returncode >= 0:
    return returncode
  name = signal.Signals(-returncode).name
  why = (
    'another process of the run has died or cannot be reached'
    if returncode == -signal.SIGABRT
    else 'it was killed'
  )
  print(
    f'error: this process of the run was ended by {name}: {why}; start all '
    'of them again with the same --workdir, and the run goes on from its last '
    'checkpoint',
    file=sys.stderr,
    flush=True,
  )
  return EXIT_CONTINUE
