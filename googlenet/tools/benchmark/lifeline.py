"""Runs a command that is killed when the process that started it has ended.

  python lifeline.py FD command [arguments]

This process becomes the command. A second process of the same group waits until
the pipe FD is closed. Only the starting process holds its other end, so it
closes when that process ends for any reason; the whole group is then killed.
This file needs only the standard library.
"""

import os
import signal
import sys


def wait_and_kill(lifeline: int) -> None:
  """Waits until a pipe is closed, then kills the group of this process."""
  nothing = os.open(os.devnull, os.O_RDWR)
  # An open copy of the command's stdout would hide from its reader that the
  # command has ended.
  for stream in (0, 1, 2):
    os.dup2(nothing, stream)
  while os.read(lifeline, 1):
    pass
  os.killpg(0, signal.SIGKILL)


def main() -> None:
  """Starts the waiting process, then becomes the command."""
  lifeline, command = int(sys.argv[1]), sys.argv[2:]
  if os.fork() == 0:
    wait_and_kill(lifeline)
  os.close(lifeline)
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
