"""How the package hangs together: what imports what, what a reader follows."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'googlenet'


def part_of(module: str) -> str:
  """The folder or file right below the package: 'googlenet.kernels.xla'."""
  return '.'.join(module.split('.')[1:2])


def imported(path: pathlib.Path) -> set[str]:
  """The parts that a file imports."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module == 'googlenet':
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      if node.module.startswith('googlenet.'):
        found.add(part_of(node.module))
    elif isinstance(node, ast.Import):
      found |= {
        part_of(alias.name)
        for alias in node.names
        if alias.name.startswith('googlenet.')
      }
  return found


def parts() -> dict[str, set[str]]:
  """What each folder and file right below the package imports of the others."""
  found = {}
  for path in PACKAGE.rglob('*.py'):
    name = path.relative_to(PACKAGE).parts[0].removesuffix('.py')
    if name not in ('__init__', '__main__'):
      found.setdefault(name, set()).update(imported(path) - {name})
  return found


# A part imports only from those before it. The tools come last: the core, which
# is what a training run needs, knows nothing of them.
ORDER = (
  'errors',
  'runtime',
  'kernels',
  'model',
  'input',
  'optimizer',
  'fields',
  'contradictions',
  'config',
  'data',
  'io',
  'train',
  'cli',
  'tools',
)


def test_a_part_imports_only_from_those_before_it():
  found = parts()
  assert found.keys() == set(ORDER)
  wrong = [
    f'{name} imports {other}'
    for name, needs in found.items()
    for other in needs
    if ORDER.index(other) > ORDER.index(name)
  ]
  assert not wrong


def test_one_file_calls_pmap_and_shard_map():
  """What JAX does to either is then a change of that file."""
  found = {'pmap': set(), 'shard_map': set()}
  for path in [ROOT / 'launch.py', *PACKAGE.rglob('*.py')]:
    for node in ast.walk(ast.parse(path.read_text())):
      names = [getattr(node, 'attr', '')]
      if isinstance(node, ast.ImportFrom):
        names = [alias.name for alias in node.names]
      for name in found.keys() & set(names):
        found[name].add(path.relative_to(ROOT).as_posix())
  one = {'googlenet/runtime/parallel.py'}
  assert found == {'pmap': one, 'shard_map': one}


def drawing(found: dict[str, set[str]]) -> str:
  """Returns the imports as a Mermaid graph, without those that others imply."""

  def reached(name: str) -> set[str]:
    return found[name].union(*(reached(other) for other in found[name]))

  lines = ['```mermaid', 'graph BT']
  for name in sorted(found):
    implied = set().union(*(reached(other) for other in found[name]))
    direct = sorted(found[name] - implied)
    lines += [f'  {name} --> {other}' for other in direct]
  return '\n'.join([*lines, '```'])


def test_the_drawing_of_the_documentation_is_that_of_the_code():
  text = (ROOT / 'docs/architecture.md').read_text()
  assert drawing(parts()) in text


def test_the_path_of_a_training_run_is_short():
  """From the config to the metrics: what a newcomer reads, all of it there."""
  text = (ROOT / 'docs/architecture.md').read_text()
  text = text[text.index('## Follow one training step') :]
  names = re.findall(r'^\| `([a-z0-9_/]+\.py)` \|', text, re.MULTILINE)
  lines = {name: len((ROOT / name).read_text().splitlines()) for name in names}
  assert len(lines) <= 25
  assert sum(lines.values()) <= 4500


def test_every_place_that_is_named_is_there():
  """Also in programs that are strings, in documents and the notebook."""
  missing = []
  for path in [
    *ROOT.glob('*.*'),
    *(
      p
      for f in ('googlenet', 'configs', 'tests', 'docs')
      for p in (ROOT / f).rglob('*')
    ),
  ]:
    if path.suffix not in ('.py', '.md', '.ipynb'):
      continue
    text = path.read_text(encoding='utf-8')
    found = re.findall(r'(?:from|import|-m) (googlenet(?:\.[a-z_0-9]+)+)', text)
    found += re.findall(r'\b(googlenet/[a-z_0-9/]+(?:\.py)?)\b', text)
    for name in found:
      place = ROOT / name.replace('.py', '').replace('.', '/')
      if not place.is_dir() and not place.with_suffix('.py').is_file():
        missing.append(f'{path}: {name}')
  assert not missing
