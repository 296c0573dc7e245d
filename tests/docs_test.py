"""The commands of README.md and docs/*.md, as they stand there.

All of them are parsed. The slow test runs them in order, each in a short form,
in a copy of the project; `RULES` says how, or why one is not run.
"""

import ast
import glob
import itertools
import os
import pathlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import pytest
from conftest import ROOT

import launch
from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.cli import help as help_lib
from googlenet.data import find
from googlenet.errors import UserError
from googlenet.tools import hub, publish, trials

PAGES = ('README.md', 'pretrained/README.md') + tuple(
  sorted(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md'))
)
# What runs that pages have made before holds: the config of the README's trial.
MADE_BEFORE = ('trial', 'mine', 'a', 'b', 'c', 'imported', 'photos')


class Command(NamedTuple):
  """A line for a shell, or a block of Python."""

  page: str
  language: str  # 'sh' or 'python'
  text: str


def commands(page: str) -> Iterator[Command]:
  """Yields the blocks of a page, and the commands in its tables, in order."""
  text = (ROOT / page).read_text(encoding='utf-8')
  pattern = r'^```(\w*)\n(.*?)^```|^\|[^\n]*\|$'
  for match in re.finditer(pattern, text, re.M | re.S):
    language, block = match[1], match[2]
    if block is None:  # a row of a table
      for code in re.findall(r'`([^`]*)`', match[0]):
        if re.search(r'\bpython (launch\.py|-m) |\bpip install', code):
          yield Command(page, 'sh', code)
    elif language == 'sh':
      block = re.sub(r' *\\ *(#.*)?\n *', ' ', block)
      quoted = r"'[^']*'|\"[^\"]*\"|#[^\n]*|[^'\"\n#]"  # may span lines
      for match_line in re.finditer(f'(?:{quoted})+', block):
        line = match_line[0]
        line = re.sub(r'(^| +)# .*', '', line)
        if line and not line.startswith('#'):
          yield Command(page, 'sh', line)
    elif language == 'python':
      yield Command(page, language, block)
    elif not language:
      for line in re.findall(r'^\$ (.*)', block, re.M):
        yield Command(page, 'sh', line)


ALL = list(dict.fromkeys(c for page in PAGES for c in commands(page)))


# ---- Parsed.


def launches(text: str) -> list[list[str]]:
  """Returns the flags of each `python launch.py` of a line for a shell."""
  variables = {'seed': '0', 'PWD': '.', 'SLURM_JOB_NAME': 'job'}
  for name, value in variables.items():
    text = text.replace(f'${name}', value)
  # What is quoted holds no operators of a shell.
  masked = re.sub(
    r"'[^']*'|\"[^\"]*\"", lambda match: 'q' * len(match[0]), text
  )
  found = re.finditer(r'launch\.py((?:(?! && |; | \| ).)*)', masked)
  return [shlex.split(text[match.start(1) : match.end(1)]) for match in found]


def make_clone(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The project as a fresh clone has it: links, but where modes write."""
  folder = tmp_path_factory.mktemp('clone')
  for name in ('launch.py', 'configs', 'googlenet', 'docs'):
    (folder / name).symlink_to(ROOT / name)
  shutil.copytree(ROOT / 'pretrained', folder / 'pretrained')
  (folder / 'runs').mkdir()
  return folder


@pytest.fixture(scope='module')
def with_runs(tmp_path_factory) -> pathlib.Path:
  clone = make_clone(tmp_path_factory)
  config = command_line.load_config_file(str(ROOT / 'configs/fmnist96.py'))
  config.model.variant, config.data.image_size = 'tiny', 28
  text = config_lib.to_json(config_lib.resolve(config))
  for name in MADE_BEFORE:
    (clone / 'runs' / name).mkdir()
    (clone / 'runs' / name / 'config.json').write_text(text)
  return clone


def test_every_page_has_its_commands():
  found = {page: sum(c.page == page for c in ALL) for page in PAGES}
  assert found['README.md'] > 35
  without = ['docs/architecture.md']
  assert [page for page, count in found.items() if not count] == without


@pytest.mark.parametrize('page', PAGES)
def test_flags_and_files_of_every_command(page, with_runs, monkeypatch):
  monkeypatch.chdir(with_runs)

  def downloaded(name: str) -> str:
    assert name in hub.PUBLISHED or name.startswith('hf:'), name
    return 'runs/imported'

  monkeypatch.setattr(hub, 'run_of', downloaded)
  for command in ALL:
    if command.page != page:
      continue
    if command.language == 'python':
      ast.parse(command.text)
      for name in re.findall(r"'(docs/[^']*)'", command.text):
        assert os.path.exists(name), name
      # A config file that the page says to save beside the project's folders.
      if saved := re.match(
        r'"""python launch\.py --config=(\w+\.py)', command.text
      ):
        pathlib.Path(saved[1]).write_text(command.text)
      continue
    assert command.text.count('launch.py') == len(launches(command.text))
    rule = rule_of(command.text)
    is_run = isinstance(rule, str)
    texts = [command.text, *([short(command.text, rule)] if is_run else [])]
    for argv in itertools.chain(*map(launches, texts)):
      argv = ['launch.py', *argv]
      if any(flag.startswith('--help') for flag in argv):
        assert help_lib.answer(launch.FLAGS, argv, sys.stdout)
        continue
      try:
        arguments = command_line.parse(launch.FLAGS, argv)
      except UserError as error:  # all is right but that it is not here
        if not re.search('is not prepared|config.data.data_dir=', str(error)):
          raise
        continue
      images = arguments.options.get('images') or ''
      if images.startswith('docs/'):  # others are the reader's own
        found = find.find(images.removesuffix(',more'), sys.stdin)
        assert len(found) == 6, images
    for module in re.findall(r'python -m (googlenet\S*)', command.text):
      assert (ROOT / module.replace('.', '/')).with_suffix('.py').exists()


def test_a_command_that_is_wrong_is_found():
  """What is asserted above of the pages, of lines that a page must not have."""
  assert launches("a=1 python launch.py --x='a;b' --y && pip x") == [
    ['--x=a;b', '--y']
  ]
  assert launches('for s in 0; do python launch.py --s=$seed; done; b') == [
    ['--s=0']
  ]
  with pytest.raises(UserError, match='did you mean'):
    command_line.parse(
      launch.FLAGS,
      ['', f'--config={ROOT}/configs/fmnist96.py', '--config.train.epoch=3'],
    )


# ---- Run.

TINY = (
  '--config.model.variant=tiny --config.model.kernels=xla '
  '--config.data.image_size=28 --config.train.max_steps=3 '
  '--config.train.batch_size=32 --config.optimizer.warmup_steps=0 '
  '--config.data.eval_split=test[:100] --config.logging.images=0'
)
# Recipes with batch norm, small images first, and several views in evaluation.
RECIPE = (
  f'{TINY} --config.model.normalization=batch --config.train.image_sizes=() '
  '--config.eval.batch_norm_batches=1'
)
SCORED = '--config.data.eval_split=test[:50] --config.model.kernels=xla'
READ = '--config.model.kernels=xla'


class Skip(NamedTuple):
  """Why commands are not run."""

  reason: str


# The first pattern that is found in a command says which flags make it short
# (they replace those of the same name), or why it is not run.
RULES: dict[str, str | Skip] = {
  r'^pip install [^&]*$|\.venv/bin': Skip(
    '.ci/run does it in a fresh environment'
  ),
  r'data\.data_dir=|runs/photos': Skip('data of the reader'),
  r'array_record_data_source': Skip('tests/tools/features_test.py'),
  r'-m pytest': Skip('the tests themselves'),
  r'tensorflow|source=tfds|imagenet224': Skip('needs a download'),
  r'curl |tarfile|scikit-learn': Skip('needs a download'),
  r'torchvision/|hf:': Skip('needs a download: tests/tools/hub_test.py'),
  r'process_id=0|srun|^#SBATCH|^if ': Skip('tests/distributed_test.py'),
  r'--mode=benchmark': Skip('minutes: tests/tools/benchmark_runner_test.py'),
  r'googlenet\.tools\.throughput': Skip('tests/tools/throughput_test.py'),
  r'--mode=demo': Skip('serves until Ctrl-C: tests/tools/demo_test.py'),
  r'tensorboard --logdir|jupyter|jax\[cuda': Skip('another program'),
  r'--mode=(import|export)_weights': Skip('tests/tools/weights_test.py'),
  r'eval\.crops': Skip('minutes: tests/tools/multi_crop_test.py'),
  r'--mode=export.*\.onnx|onnxruntime': Skip('tests/tools/export_test.py'),
  r'--mode=fid.*(generated|=real )': Skip('needs a download: fid_test.py'),
  r'--help|--mode=summary': '',
  r'--mode=atlas.*--render': f'{SCORED} --grid=4 --steps=2',
  r'--mode=atlas': f'{SCORED} --grid=4',
  r'--mode=examples.*--visualize': f'{SCORED} --steps=2',
  r'--mode=evaluate.*--calibrate': f'{SCORED} --calibrate=test[50:250]',
  r'--mode=(evaluate|report|features|examples|similarity)': SCORED,
  r'--mode=probe': f'{SCORED} --config.data.train_split=train[:100]',
  r'--mode=circuits': '',
  r'--mode=explain': (
    f'{READ} --num_images=1 --baseline= --method=grad_cam,channels'
  ),
  r'--mode=visualize': f'{READ} --steps=2 --frames=0',
  r'--mode=fid': f'{READ} --metrics=fid',
  r'--mode=(predict|export)': READ,
  r'--mode=sweep': f'{TINY} --dry_run',
  r'from_workdir=pretrained': Skip('minutes of compiling'),
  r'configs/fmnist(28_|96_best)': RECIPE,
  r'profile_steps': TINY.replace('max_steps=3', 'max_steps=8'),
  r'launch\.py --workdir=': '',
  r'launch\.py': TINY,
  r'googlenet\.tools\.ablations': Skip('tests/tools/ablated_runs_test.py'),
  r'python -m googlenet': '',
  r'sha256sum': Skip('tests/pretrained_test.py'),
  r"savez\('real\.npz'": '',
  r'googlenet\.(train|read_split)\(': Skip('tests/package_test.py'),
  r'^import |^"""python': '',
}


def rule_of(text: str) -> str | Skip | None:
  return next((r for p, r in RULES.items() if re.search(p, text)), None)


def short(text: str, flags: str) -> str:
  """Returns a command with other values of some flags."""
  for flag in flags.split():
    name = re.escape(flag.partition('=')[0])
    text = re.sub(rf" {name}=('[^']*'|\"[^\"]*\"|[^\s;'\"]+)+", '', text)
  given = ' '.join(map(shlex.quote, flags.split()))
  return text.replace('launch.py', f'launch.py {given}'.rstrip())


def test_every_command_has_a_rule():
  without = [c.text for c in ALL if rule_of(c.text) is None]
  assert not without, 'say in RULES how these are made short'
  used = {
    next(p for p in RULES if re.search(p, command.text)) for command in ALL
  }
  assert set(RULES) == used, 'rules that no command needs'
  assert short("launch.py --a='b c' --d", '--a=1') == 'launch.py --a=1 --d'


@pytest.mark.slow
def test_commands_run_in_order(
  tmp_path_factory, monkeypatch, compilation_cache, capfd
):
  """In this process, without the seconds of a start; a loop runs once."""
  clone = make_clone(tmp_path_factory)
  monkeypatch.chdir(clone)
  monkeypatch.syspath_prepend(str(clone))
  monkeypatch.setenv('JAX_COMPILATION_CACHE_DIR', compilation_cache)
  pathlib.Path('more').mkdir()
  shutil.copy('docs/photos/bag.jpg', 'more')

  def run(*flags: str) -> None:
    # Those of the commands before: a process may map memory 65,530 times.
    jax.clear_caches()
    code = launch.main(['launch.py', *flags])
    assert code == 0, f'{flags}: {capfd.readouterr().err}'

  made_by, has_run = {}, set()
  tiny = [*TINY.split(), '--config=configs/fmnist96.py']
  for name in ('a', 'b', 'c', 'mine'):  # pages take the reader's own runs
    run(*tiny, f'--workdir=runs/{name}')
  for command in ALL:
    rule = rule_of(command.text)
    # README shows the first command of many a page.
    if isinstance(rule, Skip) or command.text in has_run:
      continue
    has_run.add(command.text)
    if command.text.startswith('"""python'):  # a config file to save
      pathlib.Path('mine.py').write_text(command.text)
      is_own = 'model.architecture' in command.text
      flags = [x for x in TINY.split() if not is_own or 'variant' not in x]
      run(*flags, '--config=mine.py')
      continue
    if command.language == 'python':
      exec(command.text, {'__name__': '__main__'})
      continue
    for flags in launches(short(command.text, rule)):
      for output in (x[9:] for x in flags if x.startswith('--output=')):
        # A reader of one page has not made the files of another.
        if made_by.setdefault(output, command.page) != command.page:
          pathlib.Path(output).unlink()
          made_by[output] = command.page
      run(*flags)
    tools = re.findall(
      r'python -m googlenet\.tools\.(trials|publish) ([^;]*)', command.text
    )
    for tool, arguments in tools:
      argv = []
      for word in arguments.split():
        argv += sorted(glob.glob(word)) or [word]
      assert {'trials': trials, 'publish': publish}[tool].main(argv) == 0
