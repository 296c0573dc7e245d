"""Ends a run on a signal, with a checkpoint if there is a state to save.

Schedulers send SIGTERM and give a process about 30 s; a terminal that is closed
sends SIGHUP, which means the same here. A Python signal handler
has to wait until C++ returns, which may take longer while a large network is
compiled. So a thread, woken by the signal itself, ends a process that has
nothing to save. Where training is only a part of what the process does, as in a
notebook, an exception ends the training instead.
"""

import collections
import os
import signal
import sys
import threading

import jax
import numpy as np

from googlenet.errors import EXIT_CONTINUE, EXIT_INTERRUPTED, Stopped
from googlenet.runtime import signals
from googlenet.runtime.parallel import PMAP_AXIS, parallelize, steps_in_flight
from googlenet.runtime.terminal import remove_bars, tell


class PreemptionHandler:
  """Handles SIGTERM, SIGINT and SIGHUP inside of its `with` block.

  The first signal asks the run to end; a second SIGINT ends the process at
  once.
  """

  def __init__(self, owns_process: bool = True):
    """Waits for its `with` block.

    Args:
      owns_process: whether the process may be ended; if not, what would end it
        raises KeyboardInterrupt or `Stopped` in the main thread.
    """
    self._owns_process = owns_process
    self._is_asked = False  # whether the main thread has seen a signal
    self.signal_name = ''  # of the first signal
    self._can_save = False
    self._before = {}
    self._pipe = (-1, -1)
    self._wakeup_before = -1
    self._agreement = Agreement() if jax.process_count() > 1 else None

  def __enter__(self) -> 'PreemptionHandler':
    # Only the main thread may handle signals; a run in another thread is ended
    # by the code that started it.
    if threading.current_thread() is not threading.main_thread():
      return self
    self._pipe = os.pipe()
    if hasattr(os, 'set_blocking'):  # Python 3.11 on Windows has none
      os.set_blocking(self._pipe[1], False)
    self._wakeup_before = signal.set_wakeup_fd(self._pipe[1])
    for number in signals.asking_to_end():
      self._before[number] = signal.signal(number, self._raise)
    threading.Thread(target=self._listen, daemon=True).start()
    return self

  def __exit__(self, *_: object) -> None:
    if not self._before:
      return
    for number, handler in self._before.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(self._wakeup_before)
    self._before = {}
    os.close(self._pipe[1])  # the thread reads end of file and returns

  def _listen(self) -> None:
    with open(self._pipe[0], 'rb', buffering=0) as file:
      while number := file.read(1):
        if number[0] in self._before:
          self._take(signal.Signals(number[0]))

  def _raise(self, number: int, _: object) -> None:
    """Ends training by an exception where the process is not to be ended."""
    was_asked, self._is_asked = self._is_asked, True
    if self._owns_process or (self._can_save and not was_asked):
      return
    if number == signal.SIGINT:
      raise KeyboardInterrupt
    raise Stopped(f'{signal.Signals(number).name}: ended, nothing is saved')

  def _take(self, number: signal.Signals) -> None:
    if not self._owns_process and not self._can_save:
      return
    if self.signal_name:
      if number == signal.SIGINT and self._owns_process:
        end_process('interrupted', EXIT_INTERRUPTED)
      return
    self.signal_name = number.name
    if not self._can_save:
      end_process(
        f'{number.name}: ended before a step was made; the same command '
        'starts again',
        EXIT_CONTINUE,
      )
    tell(f'{number.name}: this step is finished and saved, then the run ends')

  def can_save(self) -> None:
    """Declares that from now on there is a state to save before the end."""
    self._can_save = True

  @property
  def reason(self) -> str:
    """The cause of the end, as text."""
    return self.signal_name or 'a signal to another process'

  def poll(self) -> bool:
    """Returns whether to end the run now.

    All processes of a run must call this equally often. All get the same
    answer, a few steps after the first process received a signal.
    """
    wanted = bool(self.signal_name)
    return self._agreement.poll(wanted) if self._agreement else wanted


class Agreement:
  """Combines a yes or no of each process into one answer for all."""

  def __init__(self):
    self._any = parallelize(
      lambda vote: jax.lax.pmax(vote, PMAP_AXIS), in_axes=(0,)
    )
    self._votes = collections.deque()

  def poll(self, wanted: bool) -> bool:
    """Returns whether any process voted yes some steps ago.

    The newest votes wait on the devices behind unfinished steps; reading them
    would block.
    """
    votes = np.full(jax.local_device_count(), wanted, np.int32)
    self._votes.append(self._any(votes))
    if len(self._votes) <= steps_in_flight():
      return False
    return bool(np.asarray(self._votes.popleft())[0])


def end_process(text: str, exit_code: int) -> None:
  """Prints a line and ends the process at once; may be called by any thread."""
  remove_bars()
  tell(text)
  sys.stdout.flush()
  os._exit(exit_code)
