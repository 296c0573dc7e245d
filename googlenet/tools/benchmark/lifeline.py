"""Starts a command that does not outlive the process that asked for it.

  python lifeline.py FD command [arguments]

The command takes the place of this process. A second process of the same group
waits for the end of the pipe FD, whose other end only the asking process holds:
when that has ended, however it did, the whole group is killed. It needs the
standard library alone.
"""

import os
import signal
import sys


def wait_and_kill(lifeline: int) -> None:
  """Waits for the end of a pipe, then kills the group of this process."""
  nothing = os.open(os.devnull, os.O_RDWR)
  for stream in (0, 1, 2):  # or the command's output would seem to go on
    os.dup2(nothing, stream)
  while os.read(lifeline, 1):
    pass
  os.killpg(0, signal.SIGKILL)


def main() -> None:
  """Becomes the command on the command line."""
  lifeline, command = int(sys.argv[1]), sys.argv[2:]
  if os.fork() == 0:
    wait_and_kill(lifeline)
  os.close(lifeline)
  os.execvp(command[0], command)


if __name__ == '__main__':
  main()
