"""`python -m googlenet` and the command `googlenet`: those of launch.py."""

from googlenet.runtime import signals


def main() -> None:
  """Runs the command line of this process and ends it."""
  signals.end_at_once()  # a signal may come during the imports
  from googlenet.cli import main as program

  program.run()


if __name__ == '__main__':
  main()
