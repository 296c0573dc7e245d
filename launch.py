"""Trains networks of the GoogLeNet family, and uses trained ones.

  python launch.py --config=configs/fmnist96.py
  python launch.py --help

The same program as the command `googlenet` of the installed package; flags and
modes are in googlenet/cli/main.py.
"""

import os
import sys

# With PYTHONSAFEPATH Python leaves this file's folder out.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

if __name__ == '__main__':  # a signal may come during the imports
  from googlenet.runtime import signals

  signals.end_at_once()

from googlenet.cli.main import FLAGS, main, run

__all__ = ['FLAGS', 'main']

if __name__ == '__main__':
  run()
