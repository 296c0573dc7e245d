"""GoogLeNet in Haiku: `googlenet.load(workdir)` returns a trained network."""

__version__ = '0.1.0'
__all__ = ['load']


def __getattr__(name: str):
  # Imported late: otherwise importing any part of the package imports JAX.
  if name == 'load':
    from googlenet.tools.inference import load

    return load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:  # for help() and completion
  return [*globals(), *__all__]
