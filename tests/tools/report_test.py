"""--mode=report: the page, parsed, and looked at in a browser."""

import base64
import html.parser
import io
import json
import re
import shutil
import tempfile

import matplotlib
import ml_collections
import numpy as np
import pytest
import small_run
from conftest import ROOT, last_of_each
from PIL import Image
from run_files import problems

import launch
from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.tools import runs
from googlenet.tools.inference import insight, trained
from googlenet.tools.modes import report as report_mode
from googlenet.tools.report import classes, figures, pictures
from googlenet.tools.scoring import predictions, scores
from googlenet.tools.scoring.predictions import predict_split

FILE = f'--config={ROOT}/configs/fmnist96.py'
EMPTY = {'meta', 'link', 'img', 'br'}


class Page(html.parser.HTMLParser):
  """A page as lists: elements with their attributes, tables as texts."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.tables, self._open = [], {}, []
    self._cells, self._caption = None, ''
    self.sections, self.text = {}, text
    self.feed(text)
    self.close()
    assert self._open == []

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in EMPTY:
      self._open.append(tag)
    if tag == 'caption':
      self._caption = ''
    if tag == 'section':
      self._section = dict(attrs)['id']
      self.sections[self._section] = ''
    if tag == 'tr':
      self._cells = []
    if tag in ('td', 'th'):
      self._cells.append('')

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag, tag
    if tag == 'tr':
      self.tables.setdefault(self._caption, []).append(self._cells)

  def handle_data(self, data):
    if 'caption' in self._open:
      self._caption += data
    elif 'td' in self._open or 'th' in self._open:
      self._cells[-1] += data
    if 'section' in self._open:
      self.sections[self._section] += data


def report(workdirs, *flags, capfd=None):
  """Runs the mode; returns the page and what it said on the side."""
  code = launch.main(
    ['launch.py', '--mode=report', f'--workdir={workdirs}', *flags]
  )
  err = capfd.readouterr().err if capfd else ''
  assert code == 0, err
  first, *others = str(workdirs).split(',')
  name = 'comparison.html' if others else 'report.html'
  with open(f'{first}/{name}', encoding='utf-8') as file:
    return Page(file.read()), err


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return small_run.train(tmp_path_factory.mktemp('runs') / 'one')


@pytest.fixture(scope='module')
def other(tmp_path_factory):
  return small_run.train(
    tmp_path_factory.mktemp('runs') / 'two', optimizer__learning_rate=0.01
  )


@pytest.fixture(scope='module')
def page(run, other):
  (run / 'report.html').write_text('of the run alone')
  page = report(f'{run},{other}', FILE, '--image_index=7')[0]
  assert (run / 'report.html').read_text() == 'of the run alone'
  return page


def image_of(uri):
  return Image.open(io.BytesIO(base64.b64decode(uri.split(',', 1)[1])))


def test_the_page_needs_nothing_beside_it(page):
  for tag, attributes in page.elements:
    assert tag not in ('script', 'iframe', 'object', 'use') or (
      tag == 'use' and attributes['xlink:href'].startswith('#')
    )
    for name in ('src', 'href', 'srcset', 'xlink:href'):
      if name in attributes:
        assert attributes[name].startswith(('data:', '#')), attributes[name]
  assert not re.search(r'@import|url\((?!#)', page.text)
  for place in set(re.findall(r'url\(#([^)]*)\)', page.text)):
    assert f'id="{place}"' in page.text
  assert len(page.text) < 1e6


def test_the_page_can_be_read_by_all(page):
  tags = [tag for tag, _ in page.elements]
  ids = [a['id'] for _, a in page.elements if 'id' in a]
  assert len(set(ids)) == len(ids)
  links = [a['href'] for tag, a in page.elements if tag == 'a']
  assert [f'#{name}' for name in page.sections] == links
  assert set(links) <= {f'#{name}' for name in ids}
  assert tags.count('h1') == tags.count('main') == tags.count('nav') == 1
  images = [a for tag, a in page.elements if tag == 'img']
  assert len(images) > 30
  for attributes in images:
    assert len(attributes['alt']) > 10
    assert min(image_of(attributes['src']).size) >= 10
  charts = [a for _, a in page.elements if a.get('class') == 'chart']
  assert len(charts) == tags.count('svg') == 5
  assert all(a['role'] == 'img' and a['aria-label'] for a in charts)
  # Colours come from the theme alone.
  for chart in re.findall(r'<svg.*?</svg>', page.text, re.DOTALL):
    assert set(re.findall(r'#[0-9a-f]{6}\b', chart)) <= {'#ffffff'}
    assert 'currentColor' in chart


def test_the_page_says_what_the_run_did(page, run, other):
  results = [json.loads((r / 'result.json').read_text()) for r in (run, other)]
  shown = dict(row for row in page.tables['Result'][1:])
  assert shown['accuracy'] == f'{results[0]["eval/accuracy"]:.4g}'
  assert shown['parameters'] == '2186'
  assert dict(page.tables['Machine'][1:])['JAX'] == results[0]['jax']
  changed = {
    row[0]: row[1:] for row in page.tables[f'Changed against {FILE[9:]}']
  }
  assert changed['config.train.epochs'] == ['10', '3']
  assert 'config.optimizer.learning_rate' not in changed
  assert 'config.seed' not in changed
  assert page.tables['Fields that differ'][1:] == [
    ['config.optimizer.learning_rate', '0.05', '0.01']
  ]
  compared = {row[0]: row[1:] for row in page.tables['Results']}
  assert compared['loss'] == [f'{r["eval/loss"]:.4g}' for r in results]
  assert ['seed', '0'] in page.tables['config.json']
  charts = [a['aria-label'] for _, a in page.elements if 'aria-label' in a]
  (loss,) = [text for text in charts if text.startswith('Loss over steps')]
  assert f'B eval {results[1]["eval/loss"]:.4g} at step 6' in loss
  assert 'A train' in loss


def test_teachers_and_folders_are_shown(config, tmp_path):
  """No mode takes these fields from a config.json; they say what was done."""
  taught = {'train.teacher': ('fmnist28_best',), 'data.data_dir': 'there'}
  for name, values in (('plain', {}), ('taught', taught)):
    config.update_from_flattened_dict(values)
    (tmp_path / name).mkdir()
    (tmp_path / name / 'config.json').write_text(config_lib.to_json(config))
  flag = f'--config={tmp_path}/plain'
  page, _ = report(f'{tmp_path}/taught,{tmp_path}/plain', flag)
  differ = page.tables['Fields that differ'][1:]
  assert differ == [
    ['config.data.data_dir', 'there', "''"],
    ['config.train.teacher', "('fmnist28_best',)", '()'],
  ]
  changed = page.tables[f'Changed against {flag[9:]}/config.json'][1:]
  assert [[name, b, a] for name, a, b in changed if 'num_c' not in name] == (
    differ
  )
  assert ['train.teacher', "('fmnist28_best',)"] in page.tables['config.json']
  given = '--config.data.data_dir=here'
  page, _ = report(f'{tmp_path}/taught', given)
  assert ['data.data_dir', 'here'] in page.tables['config.json']


def test_scores_and_errors_are_those_of_the_network(page, run):
  one = trained.load_run(run)
  predictions = predict_split(one.config, [one])
  found = scores.compute(predictions.probabilities, predictions.labels)
  (matrix,) = [
    rows for name, rows in page.tables.items() if 'Confusion' in name
  ]
  cells = [[int(text) for text in row[1:]] for row in matrix[1:]]
  assert cells == found.confusion.tolist()
  by_class = page.tables['By class']
  assert by_class[1][:2] == ['T-shirt/top', str(found.counts[0])]
  low, high = scores.accuracy_interval(found.accuracy, found.count)
  text = f'accuracy {found.accuracy:.4f} ± {(high - low) / 2:.4f} (95 %), top-5'
  assert text in page.sections['classes']
  assert (
    f'{100 * found.accuracy:.2f} ± {50 * (high - low):.2f} %'
    in (page.sections['summary'])
  )
  assert ['views of each image', '1'] in page.tables['Result']
  # The errors, one after another by hand.
  wrong = []
  for i, (odds, label) in enumerate(
    zip(predictions.probabilities, predictions.labels, strict=True)
  ):
    if odds.argmax() != label:
      wrong.append((-odds.max(), i))
  expected = [i for _, i in sorted(wrong)[: classes.NUM_ERRORS]]
  shown = re.findall(r', image (\d+)', page.sections['errors'])
  assert [int(i) for i in shown] == expected
  dataset = pipeline.load_split(one.config, 'eval_split')
  pixels, labels = dataset.read(np.array(expected[:1]))
  (first, *_) = [
    a for tag, a in page.elements if tag == 'img' and 'predicted as' in a['alt']
  ]
  np.testing.assert_array_equal(image_of(first['src']), pixels[0, ..., 0])
  assert one.class_names[labels[0]] in first['alt']


def test_errors_have_a_colour_scale_of_their_own(page):
  """The most frequent error is the brightest, and the diagonal has none."""
  names = tuple('abc')
  confusion = np.array([[90, 8, 2], [1, 99, 0], [4, 0, 96]])
  labels = np.repeat(np.arange(3), 100)
  predicted = np.concatenate([np.repeat(range(3), row) for row in confusion])
  found = scores.compute(np.eye(3, dtype=np.float32)[predicted], labels)
  rows = classes._confusion(found, names)['matrix']
  cells = [row[1:] for row in rows]
  assert [[c['text'] for c in row] for row in cells] == [
    list(map(str, row)) for row in confusion
  ]
  assert all(cells[k][k]['rgb'] is None for k in range(3))
  light = {
    c['text']: np.sum(c['rgb']) for row in cells for c in row if c['rgb']
  }
  assert light['0'] < light['1'] < light['2'] < light['4'] < light['8']
  *brightest, _ = matplotlib.colormaps['cividis'](1.0, bytes=True)
  assert cells[0][1]['rgb'] == brightest
  diagonal = [a for tag, a in page.elements if a.get('class') == 'right']
  assert len(diagonal) == 10


def test_the_matrix_of_many_classes_shows_its_errors():
  errors = np.zeros((30, 30))
  errors[3, 4], errors[5, 6] = 1, 0.5
  pixels = np.asarray(pictures.confusion(errors).convert('RGB'), int)
  assert (pixels[np.eye(30, dtype=bool)] == 128).all()
  assert pixels[3, 4].sum() > pixels[5, 6].sum() > pixels[5, 7].sum()


def test_the_maps_are_of_the_chosen_image(page, run):
  one = trained.load_run(run)
  pixels, labels = pipeline.load_split(one.config, 'eval_split').read(
    np.array([7])
  )
  text = page.sections['maps']
  assert f'Image 7: {one.class_names[labels[0]]}' in text
  for line in (
    'stage_1: 7x7, 8 channels',
    'stage_2: 7x7, 28 channels',
    'conv_3x3: 7x7, 12 channels',
    'pool_proj: 7x7, 4 channels',
  ):
    assert line in text
  added = insight.branch_contributions(one, pixels, 'inception_2a')
  (rows,) = [v for k, v in page.tables.items() if 'without a branch' in k]
  top = np.argsort(-insight.maps(one, pixels, ())[0][0])[:3]
  assert rows[0][3:] == [one.class_names[k] for k in top]
  assert [row[3:] for row in rows[1:]] == [
    [f'{added[name][0, k]:+.3f}' for k in top] for name in added
  ]
  found = insight.class_activation_maps(one, pixels)
  assert f'logit {found.logits[0, top[0]]:.2f}' in page.sections['cam']


def test_what_the_network_looks_for(page, run):
  """The channels that image 7 excites, and what excites these most."""
  one = trained.load_run(run)
  dataset = pipeline.load_split(one.config, 'eval_split')
  images, labels = dataset.read(np.arange(dataset.num_examples))
  names = 'stage_1', 'inception_2a'  # the last maps of the stages
  found = one.features(images, names)
  shown = [
    attributes
    for tag, attributes in page.elements
    if tag == 'img' and 'excite' in attributes['alt']
  ]
  text = page.sections['looks']
  assert 'among all 300 of the split' in re.sub(r'\s+', ' ', text)
  assert 'A position sees 11x11 pixels' in text
  expected = []
  for name in names:
    means = found[name][7].mean((0, 1))
    for k in np.argsort(-means, kind='stable')[:4]:
      values = found[name][..., k].max((1, 2))
      best = np.lexsort((np.arange(300), -values))[:6]
      of_these = {one.class_names[label] for label in labels[best]}
      expected.append((f'{name}:{k}', of_these))
      assert f'{values[best[0]]:.3g} to {values[best[-1]]:.3g}.' in text
  assert len(shown) == len(expected) == 8
  for attributes, (name, of_these) in zip(shown, expected, strict=True):
    start = f'The images that excite {name} most: '
    assert attributes['alt'].startswith(start)
    listed = re.sub(r' \(\d\)', '', attributes['alt'].removeprefix(start))
    assert set(listed.split(', ')) == of_these
    # One that is made, and six of the data set.
    assert image_of(attributes['src']).size == (7 * 80 + 6 * 2, 80)


def test_classes_of_other_data_are_matched_by_name(tmp_path, monkeypatch):
  run = small_run.untrained(tmp_path / 'run')
  (run / 'classes.txt').write_text('\n'.join('abcdefghij'))
  one = trained.load_run(run)
  names = one.class_names[::-1]
  np.savez(
    tmp_path / 'others.npz',
    test_images=np.zeros((3, 28, 28), np.uint8),
    test_labels=np.array([0, 1, 9]),
    class_names=np.array(names),
  )
  config = ml_collections.ConfigDict(one.config.to_dict())
  config.data.update(
    source='arrays',
    data_dir=str(tmp_path / 'others.npz'),
    train_split='test',
    eval_split='test',
  )

  def predict(config, members):
    dataset = predictions.load_split(config, members[0])
    odds = np.eye(10, dtype=np.float32)[[4, 4, 4]] * 0.9 + 0.01
    return predictions.Predictions(dataset, odds, dataset.read(np.arange(3))[1])

  shown = {}
  monkeypatch.setattr(report_mode, 'predict_split', predict)
  for module, name in (
    (report_mode.inside, 'class_maps'),
    (report_mode.inside, 'maps'),
    (report_mode.looks, 'section'),
    (classes, 'errors'),
    (classes, 'classes'),
  ):
    monkeypatch.setattr(module, name, lambda *a, n=name: shown.update({n: a}))
  files = runs.read(str(run), ml_collections.FrozenConfigDict(config))
  report_mode._of_network(files, '', 1)
  assert shown['maps'][3] == names[1]
  captions = shown['class_maps'][2]
  assert captions[0] == f'Image 1: {names[1]}.'
  assert set(captions[1:]) == {
    f'Image {i}: is {names[k]}.' for i, k in enumerate([0, 1, 9])
  }


def test_a_run_that_was_cut_off(run, tmp_path, capfd):
  """Without result and checkpoints, half a line at the end of its records."""
  workdir = tmp_path / 'cut'
  shutil.copytree(run, workdir)
  shutil.rmtree(workdir / 'checkpoints')
  for name in ('result.json', 'report.html', 'classes.txt'):
    (workdir / name).unlink(missing_ok=True)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  (workdir / 'metrics.jsonl').write_text('\n'.join(lines[:3]) + '\n{"step": ')
  made, err = report(workdir, capfd=capfd)
  assert err == ''
  assert 'not finished: running or stopped' in made.sections['summary']
  assert 'No checkpoint so far' in made.sections['classes']
  assert '--config=configs/fmnist96.py' in made.sections['config']
  assert list(made.sections) == ['summary', 'curves', 'classes', 'config']
  assert sum(tag == 'svg' for tag, _ in made.elements) == 4


def test_weights_of_elsewhere(tmp_path, capfd):
  """No records, three channels, neither blocks nor a global mean."""
  workdir = small_run.untrained(
    tmp_path / 'vgg',
    channels=3,
    model__variant='vgg16',
    model__width_multiplier=0.01,
    model__num_classes=30,
    data__image_size=32,
    data__channels=3,
    data__eval_split='test[:40]',
  )
  (workdir / 'classes.txt').write_text(
    'a <b>&amp; "class"\n<script>alert(1)</script>\n{{ 1 / 0 }}\n'
  )
  made, err = report(workdir, capfd=capfd)
  assert problems(err) == ''
  assert 'there are no curves' in made.sections['curves']
  assert 'no global mean' in made.sections['cam']
  assert 'no blocks' in made.sections['maps']
  assert made.tables['By class'][-1][0] == 'mean of classes'
  assert 'a <b>&amp; "class"' in made.sections['classes']
  assert '<b>&amp; "class"' not in made.text
  assert '<script>alert(1)</script>' in made.sections['classes']
  assert 'script' not in {tag for tag, _ in made.elements}
  assert '{{ 1 / 0 }}' in made.sections['classes']
  assert 'of 3x3x3, each scaled' in made.sections['filters']
  assert 'Confusion matrix of 30 classes' in made.text


def test_data_that_is_not_here(run, tmp_path, capfd):
  """Left out where that is the run's, an error where it was asked for."""
  workdir = tmp_path / 'moved'
  shutil.copytree(run, workdir)
  config = json.loads((workdir / 'config.json').read_text())
  config['data'] |= {'source': 'tfds', 'name': 'gone'}
  (workdir / 'config.json').write_text(json.dumps(config))
  made, err = report(workdir, capfd=capfd)
  assert err.startswith('warning: ')
  assert err.count('\n') == 1
  assert 'left out: ' in made.sections['classes']
  assert 'filters of 7x7x1' in made.sections['filters']
  assert 'maps' not in made.sections


BAD_INPUT = {
  'unknown block': (['--block=inception_3a'], ["'inception_2a'"]),
  'no such image': (['--image_index=300'], ['=300', 'test[:300]', '0 to 299']),
  'negative image': (['--image_index=-1'], ['--image_index=-1']),
  'no such split': (
    ['--config.data.eval_split=tset'],
    ['config.data.eval_split', "'test'"],
  ),
  'no such config file': (['--config=fmnist.py'], ['--config=fmnist.py']),
  'no run': (['--workdir=nothing'], ['--workdir=nothing', 'no run']),
  'one of two is no run': (['--workdir={run},no'], ['--workdir=no', 'no run']),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input_is_one_line(case, run, tmp_path, monkeypatch, capfd):
  flags, words = BAD_INPUT[case]
  monkeypatch.chdir(tmp_path)
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  (workdir / 'report.html').write_text('older')
  flags = [flag.format(run=workdir) for flag in flags]
  code = launch.main(
    last_of_each(['launch.py', '--mode=report', f'--workdir={workdir}', *flags])
  )
  err = capfd.readouterr().err
  assert code == 2, err
  assert err.count('\n') == 1, err
  assert all(word in err for word in ['error: ', *words]), err
  assert (workdir / 'report.html').read_text() == 'older'
  assert not list(workdir.glob('*.tmp'))


def test_damaged_checkpoints_are_told(run, tmp_path, capfd):
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  for path in (workdir / 'checkpoints').iterdir():
    path.write_bytes(path.read_bytes()[:1000])
  code = launch.main(['launch.py', '--mode=report', f'--workdir={workdir}'])
  err = capfd.readouterr().err
  assert (code, err.count('\n')) == (2, 1)
  assert 'step_000000006.npz' in err


def test_long_curves_are_thinned_to_means():
  x, y = figures.thinned(range(100_000), [1.0] * 50_000 + [3.0] * 50_000)
  assert len(x) == len(y) == 400
  assert (y[0], y[-1], y.mean()) == (1, 3, 2)
  assert x[0] == np.arange(250).mean()
  x, y = figures.thinned([1, 2], [5.0, 6.0])
  assert (x.tolist(), y.tolist()) == ([1, 2], [5, 6])


def test_pictures_have_the_colours_of_their_values():
  values = np.array([[[0.0, 9.0], [1.0, 9.0]], [[0.5, 9.0], [0.0, 9.0]]])
  made = np.asarray(pictures.feature_maps(values, columns=2, tile=2))
  assert made.shape == (2, 6, 4)
  assert not made[:, 2:4].any()  # transparent between the channels
  low, middle, high = pictures.heat(np.array([[0.0, 0.5, 1.0]])).getdata()
  strongest, other = made[:, :2], made[:, 4:]
  assert (strongest == high).all()
  expected = [[low, high], [middle, low]]
  np.testing.assert_array_equal(other, expected)
  weights = np.zeros((3, 3, 1, 2))
  weights[0, 0, 0, 0], weights[2, 2, 0, 1] = -0.1, 7.0
  made = np.asarray(pictures.filters(weights, tile=3))[..., 0]
  assert (made[0, 0], made[1, 1], made[2, 7]) == (0, 128, 255)


def test_a_curve_skips_what_is_no_number(tmp_path):
  workdir = small_run.untrained(tmp_path / 'run')
  (workdir / 'metrics.jsonl').write_text(
    '{"step": 4, "train/loss": 1.5}\n{"step": 2, "train/loss": "x"}\n'
    '{"step": 1, "train/loss": 2}\nno JSON\n'
  )
  (workdir / 'result.json').write_text('{"step": ')
  found = runs.read(str(workdir))
  assert found.curve('train/loss') == ([1, 4], [2, 1.5])
  assert found.result == {}
  assert found.steps == (0,)
  assert 'not finished' in found.state
  (workdir / 'diverged.json').write_text('{"error": "train/loss is nan"}')
  assert runs.read(str(workdir)).state == 'diverged: train/loss is nan'


@pytest.fixture(scope='module')
def browser():
  """Chromium without a window, all of whose requests are recorded."""
  webdriver = pytest.importorskip(
    'selenium.webdriver', reason='pip install selenium'
  )
  chromium = shutil.which('chromium') or shutil.which('chromium-browser')
  driver = shutil.which('chromedriver')
  if not chromium or not driver:
    pytest.skip('needs chromium and chromedriver (Debian: chromium-driver)')
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
  with tempfile.TemporaryDirectory() as profile:
    for flag in (
      'headless',
      'no-sandbox',
      'disable-gpu',
      'disable-quic',
      'no-first-run',
      'disable-background-networking',
      'disable-component-update',
      'disable-sync',
      f'user-data-dir={profile}',
    ):
      options.add_argument(f'--{flag}')
    service = webdriver.chrome.service.Service(driver)
    browser = webdriver.Chrome(options=options, service=service)
    yield browser
    browser.quit()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [390, 1280])
def test_the_page_in_a_browser(page, run, browser, width, scheme):
  size = {'width': width, 'height': 900, 'deviceScaleFactor': 1}
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride', size | {'mobile': width < 500}
  )
  browser.execute_cdp_cmd(
    'Emulation.setEmulatedMedia',
    {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
  )
  browser.get_log('performance')
  browser.get((run / 'comparison.html').as_uri())
  run_js = browser.execute_script
  # Nothing is wider than the window, but for what scrolls by itself.
  assert run_js('return document.documentElement.scrollWidth') <= width
  too_wide = """
    return [...document.querySelectorAll('body *')].filter(e =>
      !e.closest('.scroll, svg') &&
      e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
    ).map(e => e.outerHTML.slice(0, 100))"""
  assert run_js(too_wide) == []
  images = run_js(
    'return [...document.images].map(i => [i.complete, i.naturalWidth])'
  )
  assert len(images) > 30
  assert all(done and wide > 0 for done, wide in images)
  paper, ink, chart = run_js("""
    const of = (e, what) => getComputedStyle(e)[what].match(/\\d+/g).map(Number)
    return [of(document.body, 'backgroundColor'), of(document.body, 'color'),
            of(document.querySelector('svg text'), 'fill')]""")
  assert (sum(paper) < sum(ink)) == (scheme == 'dark')
  assert chart[:3] == ink[:3]
  events = [json.loads(e['message']) for e in browser.get_log('performance')]
  urls = [
    e['message']['params']['request']['url']
    for e in events
    if e['message']['method'] == 'Network.requestWillBeSent'
    and not e['message']['params']['documentURL'].startswith('chrome:')
  ]
  assert urls
  assert {url.split(':')[0] for url in urls} <= {'file', 'data'}
