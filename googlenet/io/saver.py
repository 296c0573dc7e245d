"""Checkpoints written beside training, by a thread of their own."""

import os
import threading

from googlenet.errors import UserError
from googlenet.io import checkpoint


class WriteError(UserError):
  """What a run makes cannot be written; it can be continued later."""

  exit_code = 74  # EX_IOERR of sysexits.h


class Saver:
  """Writes snapshots one after another, never two at a time.

  A snapshot that cannot be written costs a warning and training goes on; the
  last one of a run has to be written.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], keep: int, warn: checkpoint.Warn
  ):
    self._workdir, self._keep, self._warn = workdir, keep, warn
    self._thread: threading.Thread | None = None
    self._error: OSError | None = None
    self._step = 0

  def save(
    self, snapshot: checkpoint.Snapshot, best_step: int | None = None
  ) -> None:
    """Starts to write a snapshot, when the one before it is written."""
    self.poll(wait=True)
    self._step = snapshot.step

    def write():
      try:
        checkpoint.save(self._workdir, snapshot, self._keep, best_step)
      except OSError as error:
        self._error = error

    self._thread = threading.Thread(target=write, name='saver')
    self._thread.start()

  def poll(self, wait: bool = False) -> bool:
    """Tells of a snapshot that could not be written.

    Args:
      wait: until the last one is written, or is not.

    Returns:
      Whether nothing went wrong since the last call.
    """
    if self._thread is not None and (wait or not self._thread.is_alive()):
      self._thread.join()
      self._thread = None
    if self._thread is not None or self._error is None:
      return True
    self._warn(
      f'{self._failure()}: training goes on, and the checkpoints before it are '
      'as they were'
    )
    self._error = None
    return False

  def _failure(self) -> str:
    return (
      f'the checkpoint of step {self._step} cannot be written to '
      f'{checkpoint.folder_of(self._workdir)} ({self._error.strerror})'
    )

  def finish(self) -> None:
    """Waits until the last snapshot is written.

    Raises:
      WriteError: it cannot be written.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      raise WriteError(
        f'{self._failure()}: the checkpoints before it are as they were; make '
        'room or mend the folder, then the same command with this --workdir '
        'goes on from there'
      ) from self._error
