"""The notebooks of docs/ run from top to bottom, in their short form."""

import ast
import json

import pytest
from conftest import ROOT

PATHS = sorted((ROOT / 'docs').glob('*.ipynb'))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
  return request.param


@pytest.fixture
def notebook(path):
  return json.loads(path.read_text(encoding='utf-8'))


def code_cells(notebook):
  return [cell for cell in notebook['cells'] if cell['cell_type'] == 'code']


def test_it_is_committed_with_outputs_and_small(notebook, path):
  assert path.stat().st_size < 2**20
  cells = code_cells(notebook)
  # In order, without an error, as a fresh kernel made them.
  counts = [cell['execution_count'] for cell in cells]
  assert counts == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell['outputs']]
  kinds = {output['output_type'] for output in outputs}
  assert kinds <= {'stream', 'display_data', 'execute_result'}
  assert {output.get('name') for output in outputs} <= {'stdout', None}
  figures = [o for o in outputs if 'image/png' in o.get('data', {})]
  assert len(figures) == sum(
    'plt.show()' in ''.join(cell['source']) for cell in cells
  )
  assert str(ROOT) not in path.read_text(encoding='utf-8')


def test_what_it_imports_of_the_project_is_there(notebook):
  """Seconds, where the run below is a slow test."""
  for cell in code_cells(notebook):
    for node in ast.walk(ast.parse(''.join(cell['source']))):
      if isinstance(node, ast.ImportFrom) and 'googlenet' in node.module:
        exec(ast.unparse(node), {})


@pytest.mark.slow
def test_it_runs(notebook, path, monkeypatch, capsys):
  """Cell by cell in this process; the code is plain Python."""
  pyplot = pytest.importorskip(
    'matplotlib.pyplot', reason='pip install matplotlib'
  )
  pyplot.switch_backend('Agg')
  monkeypatch.setattr(pyplot, 'show', lambda: pyplot.close('all'))
  monkeypatch.setenv('NOTEBOOK_STEPS', '3')
  monkeypatch.chdir(ROOT / 'docs')
  monkeypatch.syspath_prepend(str(ROOT))
  names = {'__name__': '__main__'}
  for number, cell in enumerate(code_cells(notebook), start=1):
    source = ''.join(cell['source'])
    exec(compile(source, f'cell {number}', 'exec'), names)
  out = capsys.readouterr().out
  if path.stem != 'googlenet':
    assert len(names['made']) == len(names['BLOCKS'])
    return
  assert len(names['losses']) == 3
  # What does not depend on training is what was committed.
  for cell in code_cells(notebook)[2:6]:
    for output in cell['outputs']:
      if output['output_type'] == 'stream':
        assert ''.join(output['text']) in out
