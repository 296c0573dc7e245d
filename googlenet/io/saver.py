"""Writes checkpoints in a background thread."""

import os
import threading

from googlenet.errors import UnreadableError, WriteError
from googlenet.io import checkpoint


class Saver:
  """Writes snapshots in the background, one at a time.

  If a snapshot cannot be written, there is a warning and training continues;
  only for the last one of a run it is an error.
  """

  def __init__(
    self, workdir: str | os.PathLike[str], keep: int, warn: checkpoint.Warn
  ):
    self._workdir, self._keep, self._warn = workdir, keep, warn
    self._thread: threading.Thread | None = None
    self._error: Exception | None = None
    self._step = 0

  def save(
    self, snapshot: checkpoint.Snapshot, best_step: int | None = None
  ) -> None:
    """Starts to write a snapshot after the previous one is written."""
    self.poll(wait=True)
    self._step = snapshot.step

    def write():
      try:
        checkpoint.save(self._workdir, snapshot, self._keep, best_step)
      except Exception as error:  # for the thread that asks
        self._error = error

    self._thread = threading.Thread(target=write, name='saver')
    self._thread.start()

  def poll(self, wait: bool = False) -> None:
    """Warns if a snapshot could not be written.

    Args:
      wait: whether to wait until writing has ended.
    """
    if self._thread is not None and (wait or not self._thread.is_alive()):
      self._thread.join()
      self._thread = None
    if self._thread is None and self._error is not None:
      self._raise_others()
      self._warn(
        f'{self._failure()}: training continues, and older checkpoints are '
        'unchanged'
      )
      self._error = None

  def _raise_others(self) -> None:
    """Raises the error of the thread if it is not about a file."""
    if not isinstance(self._error, (OSError, UnreadableError)):
      error, self._error = self._error, None
      raise error

  def _failure(self) -> str:
    reason = getattr(self._error, 'strerror', None) or self._error
    return (
      f'the checkpoint of step {self._step} cannot be written to '
      f'{checkpoint.folder_of(self._workdir)} ({reason})'
    )

  def finish(self) -> None:
    """Waits until the last snapshot is written.

    Raises:
      WriteError: the last snapshot cannot be written.
    """
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      self._raise_others()
      failure, error, self._error = self._failure(), self._error, None
      raise WriteError(  # told once: `poll` would say that training continues
        f'{failure}: older checkpoints are unchanged; free disk space or '
        'repair the folder, then the same command with this --workdir '
        'continues from the last one'
      ) from error
