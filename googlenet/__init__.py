"""GoogLeNet in Haiku: `googlenet.load(workdir)` is a trained network."""

__version__ = '0.1.0'


def __getattr__(name: str):
  # Late: whatever imports a part of the package would import JAX as well.
  if name == 'load':
    from googlenet.tools.inference import load

    return load
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
