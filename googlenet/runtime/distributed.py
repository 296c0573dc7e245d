"""Joins several processes to one run, and sends values of process 0 to all.

Every process reads its share of the data; only process 0 writes.
"""

import collections
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from googlenet.errors import (
  EXIT_BAD_INPUT,
  EXIT_CANNOT_WRITE,
  EXIT_CONTINUE,
  UserError,
  is_full,
  write_failure,
)
from googlenet.runtime import streams, supervisor
from googlenet.runtime.terminal import tell_error

# Variables of launchers: number of processes, index of this one. JAX finds the
# coordinator.
_PLACES = (
  ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
  ('SLURM_NTASKS', 'SLURM_PROCID'),
)


class Address(NamedTuple):
  """The place of this process in a run; None: JAX finds the value."""

  coordinator_address: str | None
  num_processes: int | None
  process_id: int | None


def complete(address: Address, environment: Mapping[str, str]) -> Address:
  """Fills in the number of processes and the index from a launcher's variables.

  Under Open MPI 5 JAX would need mpi4py for them. Without a coordinator address
  the address is returned unchanged. An empty variable counts as unset.

  Raises:
    UserError: such a variable is not a whole number.
  """
  if not address.coordinator_address:
    return address
  for names in _PLACES:
    if all(map(environment.get, names)):
      count, place = (_number(name, environment[name]) for name in names)
      return Address(
        address.coordinator_address,
        address.num_processes or count,
        place if address.process_id is None else address.process_id,
      )
  return address


def _number(name: str, text: str) -> int:
  if not re.fullmatch('[0-9]{1,9}', text):
    raise UserError(
      f'the variable {name}={text!r}, which a launcher sets, is not a whole '
      'number: unset it, and give --num_processes and --process_id'
    )
  return int(text)


def check_address(address: Address, environment: Mapping[str, str]) -> None:
  """Checks the flags that give an address.

  Args:
    address: the flags.
    environment: variables of the process, among them those of a launcher.

  Raises:
    UserError: a flag is malformed, out of range, missing or of no use.
  """
  where, count, place = address
  if where and not re.fullmatch(r'[^:\s]+:\d{1,5}|\[[^]\s]+\]:\d{1,5}', where):
    raise UserError(
      f'--coordinator_address={where} is not an address: it takes host:port of '
      'process 0, like node1:12345'
    )
  if count is not None and count < 1:
    raise UserError(
      f'--num_processes={count} is not allowed: it takes 1 or more'
    )
  if place is not None and not 0 <= place < (count or place + 1):
    raise UserError(
      f'--process_id={place} is not allowed: it takes 0 to {(count or 1) - 1}, '
      'one less than --num_processes'
    )
  if (count or 1) > 1 and place is not None and not where:
    raise UserError(
      '--coordinator_address is missing: give host:port of process 0'
    )
  is_joined = supervisor.is_one_of_several(count, where, environment)
  if place is not None and count is None and not is_joined:
    raise UserError(  # each process would be a run of its own
      f'--process_id={place} is given alone: give --coordinator_address and '
      '--num_processes as well, or leave it out for a run of one process'
    )


class PeerError(UserError):
  """A computation with the other processes of the run has failed."""

  exit_code = EXIT_CONTINUE

  def __init__(self, error: Exception):
    super().__init__(
      'this process has lost the others of the run '
      f'({" ".join(str(error).split())[:200]}): start all of them again with '
      'the same --workdir, and the run goes on from its last checkpoint'
    )


# JAX's own limit ends the process from C++ with a page of internals. It only
# counts if Python does not get to run.
_SECONDS_OF_JAX = 60


def _end_for_lack_of_peers(address: Address, seconds: int) -> None:
  """Prints one line and ends this process, which waits in C++."""
  where, count, place = address
  tell_error(
    f'this process{"" if place is None else f" ({place} of {count})"} has '
    f'waited {seconds} s (--heartbeat_timeout_seconds) in vain for all others '
    f'to come to {where or "the coordinator"}: start all of them with the same '
    '--workdir, and the run begins or goes on'
  )
  end_process(EXIT_CONTINUE)


def initialize(address: Address, heartbeat_timeout_seconds: int) -> None:
  """Joins the processes of a run; call this before JAX looks for devices.

  If another process does not come within `heartbeat_timeout_seconds`, this one
  ends with a line and the exit code 75.

  Args:
    address: the place of this process.
    heartbeat_timeout_seconds: a process that is silent for so long counts as
      dead, and the others end.

  Raises:
    UserError: the processes do not find each other.
  """
  address = complete(address, os.environ)
  limit = threading.Timer(
    heartbeat_timeout_seconds,
    _end_for_lack_of_peers,
    (address, heartbeat_timeout_seconds),
  )
  limit.daemon = True
  limit.start()
  try:
    jax.distributed.initialize(
      **address._asdict(),
      heartbeat_timeout_seconds=heartbeat_timeout_seconds,
      initialization_timeout=heartbeat_timeout_seconds + _SECONDS_OF_JAX,
    )
  except (RuntimeError, ValueError, OSError, KeyError) as error:
    raise UserError(
      f'the processes of this run do not find each other: '
      f'{" ".join(str(error).split())[:300]}; give --coordinator_address, '
      '--num_processes and --process_id to each'
    ) from error
  finally:
    limit.cancel()


def is_one_of_several() -> bool:
  """Returns whether `initialize` has joined this process to others."""
  return jax.distributed.is_initialized()


def broadcast(tree: Any) -> Any:
  """Returns the arrays that process 0 passes, in every process."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def on_process_0(function: Callable[[], Any]) -> Any:
  """Calls a function in process 0 and returns its value everywhere.

  Args:
    function: returns a value that JSON can hold.

  Raises:
    UserError: `function` raised one, or an OSError, in process 0; every process
      raises it.
  """
  if jax.process_count() == 1:
    return function()
  message, value = {}, None
  if jax.process_index() == 0:
    try:
      value = function()
      message = {'value': value}
    except UserError as error:
      message = {'error': str(error), 'exit_code': error.exit_code}
    except OSError as error:  # else the others would wait for the value
      message = {'error': str(error), 'exit_code': EXIT_BAD_INPUT}
      if is_full(error):
        text = write_failure(error)
        message = {'error': text, 'exit_code': EXIT_CANNOT_WRITE}
  data = json.dumps(message).encode()
  size = int(broadcast(np.array(len(data), np.int32)))
  padded = np.frombuffer(data.ljust(size)[:size], np.uint8)
  message = json.loads(broadcast(padded).tobytes())
  if 'error' in message:
    error = UserError(message['error'])
    error.exit_code = message['exit_code']
    raise error
  return message['value']


def check_devices() -> None:
  """Checks that all processes of a run have equally many devices.

  A batch is split evenly, and so are the arrays that processes exchange.

  Raises:
    UserError: they have not; every process raises it.
  """
  counts = collections.Counter(d.process_index for d in jax.devices())
  if len(set(counts.values())) > 1:
    words = ', '.join(f'process {i} {n}' for i, n in sorted(counts.items()))
    raise UserError(
      f'the processes of this run have different numbers of devices: {words}; '
      'start them where each sees as many (CUDA_VISIBLE_DEVICES, or on a CPU '
      'XLA_FLAGS=--xla_force_host_platform_device_count)'
    )


def check_none_differs(what: str) -> None:
  """Ends all processes of a run if one of them is not as process 0 is.

  Args:
    what: how this one differs from process 0; '': it does not.

  Raises:
    UserError: this process or another one differs; every process raises it.
  """
  if jax.process_count() == 1:
    return
  found = multihost_utils.process_allgather(np.array(bool(what)))
  if not found.any():
    return
  mend = 'start all processes of a run with the same flags and the same data'
  if what:
    raise UserError(
      f'this process ({jax.process_index()} of {jax.process_count()}) is not '
      f'as process 0 is: {what}; {mend}'
    )
  raise UserError(
    f'process {np.flatnonzero(found)[0]} of {jax.process_count()} is not as '
    f'process 0 is, and says what differs: {mend}'
  )


def silence_threads() -> None:
  """Hides what C++ threads write to stderr; Python still writes there.

  Otherwise JAX's threads would report a lost process below the line that says
  why this process has ended.
  """
  sys.stderr.flush()
  ours = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  os.close(nowhere)
  sys.stderr = streams.make(ours, like=sys.stderr)


def end_process(exit_code: int) -> None:
  """Ends this process at once.

  A normal exit would wait minutes for the other processes, which may in turn
  wait for this one.
  """
  os._exit(exit_code)
