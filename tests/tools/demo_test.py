"""The page of --mode=demo: in a real browser, and its server by requests."""

import base64
import contextlib
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import ml_collections
import numpy as np
import pytest
from conftest import ROOT, load_config
from PIL import Image
from run_files import problems

import launch
from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.errors import UserError
from googlenet.model import network as network_lib
from googlenet.model.initialization import init_from_numpy
from googlenet.tools.demo import answer, attribution
from googlenet.tools.demo import likes as likes_lib
from googlenet.tools.demo.likes import Likes
from googlenet.tools.examples.ranking import top_images
from googlenet.tools.examples.receptive import receptive_field
from googlenet.tools.explain import methods
from googlenet.tools.explain.target import Target
from googlenet.tools.inference import channels, insight, trained
from googlenet.tools.modes import demo
from googlenet.train import loop


def png(pixels: np.ndarray) -> bytes:
  return answer.encode(pixels.astype(np.uint8))


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, compilation_cache):
  """A run of a few steps."""
  config = load_config(ROOT / 'configs/fmnist96.py').unlock()
  config.model.variant = 'tiny'
  config.data.image_size = 28
  config.data.eval_split = 'test[:100]'
  config.train.max_steps = 20
  config.train.batch_size = 32
  config.train.precision = 'float32'
  config.logging.images = 0
  config.train.compilation_cache = compilation_cache
  path = tmp_path_factory.mktemp('demo') / 'run'
  loop.train_and_evaluate(config_lib.resolve(config), path)
  return path


@pytest.fixture(scope='module')
def member(workdir):
  return trained.load_run(workdir)


def test_answer_says_what_the_network_does(member):
  dataset = pipeline.load_split(member.config, 'eval_split')
  (image,), _ = dataset.read(np.arange(1))
  told = answer.answer(member, image)
  json.dumps(told, allow_nan=False)
  logits, maps = insight.maps(member, image[None], ('stage_1',))
  probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
  order = np.argsort(-logits[0])
  assert [c['name'] for c in told['classes']] == [
    dataset.class_names[k] for k in order
  ]
  np.testing.assert_allclose(
    [c['probability'] for c in told['classes']], probabilities[order], rtol=1e-4
  )
  # Without the augmentation and the resizing the network sees what is stored.
  np.testing.assert_array_equal(decoded(told['seen']), image[..., 0])
  # Branches: each by itself, as the other function has it.
  effects = insight.branch_contributions(member, image[None], 'inception_2a')
  (block,) = told['blocks']
  assert block['name'] == 'inception_2a'
  assert [b['name'] for b in block['branches']] == list(effects)
  for branch in block['branches']:
    np.testing.assert_allclose(
      branch['effects'], effects[branch['name']][0, order], atol=1e-5
    )
  # Stages: the strongest channels, brightest first.
  stages = {stage['name']: stage for stage in told['stages']}
  assert stages['stage_1']['shape'] == [7, 7, 8]
  shown = [c['channel'] for c in stages['stage_1']['channels']]
  assert shown == list(np.argsort(-maps['stage_1'][0].mean((0, 1))))
  y = maps['stage_1'][0]
  np.testing.assert_allclose(
    decoded(stages['stage_1']['channels'][0]['image']),
    255 * (y[..., shown[0]] - y.min()) / (y.max() - y.min()),
    atol=0.51,
  )
  # Where each fired: the largest value of its map, and what that sees.
  field = receptive_field(member.network, 'stage_1', (28, 28, 1))
  for one in stages['stage_1']['channels']:
    values = y[..., one['channel']]
    assert one['value'] == pytest.approx(values.max())
    place = np.argwhere(values == values.max())[0]
    np.testing.assert_allclose(one['box'], np.array(field.box(*place)) / 28)
  # Class activation maps: their colour is on which side of their mean they are.
  class_maps = insight.class_activation_maps(member, image[None])
  differences = [one - one.mean() for one in class_maps.maps[0]]
  for entry, k in zip(told['classes'], order, strict=True):
    overlay, one = decoded(entry['map']), class_maps.maps[0, k]
    np.testing.assert_array_equal(overlay[..., 0] == 255, differences[k] > 0)
    assert entry['logit'] == pytest.approx(one.mean() + entry['bias'], abs=1e-4)
    far = np.abs(differences[k])
    assert entry['scale'] == pytest.approx(far.max(), rel=1e-4)
    alpha = 190 * far / far.max()
    np.testing.assert_allclose(overlay[..., 3], alpha, atol=0.51)


def test_a_sure_class_shows_where_its_evidence_differs():
  """Its map is large everywhere, as with the networks that are shipped."""
  maps = np.full((2, 4, 4), 4.0)
  maps[0, 1, 2], maps[1] = 4.8, -0.4
  above, flat = answer.overlays(maps)
  assert above[1, 2].tolist() == [255, 140, 0, 190]
  assert (np.delete(above[..., 3].ravel(), 6) < 20).all()
  assert not flat[..., 3].any()


def test_what_a_channel_likes(member, monkeypatch):
  """The best of the split; each stage is looked through once."""
  dataset = pipeline.load_split(member.config, 'eval_split')
  calls = []

  def count(*args, **options):
    calls.append(args)
    return top_images(*args, **options)

  monkeypatch.setattr(likes_lib, 'top_images', count)
  monkeypatch.setattr(likes_lib, 'MAX_IMAGES', 80)
  named = member._replace(class_names=[f'class {k}' for k in range(10)])
  likes = Likes(named, dataset)
  assert likes.channels == {'stage_1': 8, 'stage_2': 28}
  told = [likes('stage_1', k) for k in (3, 0)]
  assert len(calls) == 1
  json.dumps(told, allow_nan=False)
  every = [channels.Channel('stage_1', k) for k in (3, 0)]
  few = dataset._replace(num_examples=80)
  found = top_images(member, few, every, 6).most
  for i, one in enumerate(told):
    assert (one['field'], one['size'], one['count']) == ([11, 11], 28, 80)
    labels = dataset.read(found.indices[i])[1]
    shown = [example['label'] for example in one['examples']]
    assert shown == [f'class {k}' for k in labels]
    np.testing.assert_allclose(
      [example['value'] for example in one['examples']],
      found.values[i],
      rtol=1e-5,
    )
    picture = decoded(one['examples'][0]['image'])
    assert (picture == (255, 140, 0)).all(-1).sum() > 50  # its frame
  # Of a stage that ends in the global mean it is the map before.
  assert len(likes('stage_2', 27)['examples']) == 6
  assert calls[-1][2][0].point == 'inception_2a'


def test_attributions_are_those_of_the_method(member):
  (image,), _ = pipeline.load_split(member.config, 'eval_split').read(
    np.arange(1)
  )
  names = [one['name'] for one in attribution.describe(member)]
  assert names[0] == 'class_activation_map'
  assert set(names) == methods.METHODS.keys()
  for name in ('occlusion', 'gradient'):
    told = attribution.attribute(member, image, name, 3)
    json.dumps(told, allow_nan=False)
    assert told['text'] == methods.METHODS[name].text
    assert told['signed'] == (name == 'occlusion')
    found = methods.METHODS[name].explain(
      member, image[None], Target(3), methods.Options()
    )[0]
    if name == 'gradient':
      found = np.abs(found[..., 0])
    drawn = decoded(told['map'])
    assert drawn.shape == (28, 28, 4)
    share = np.clip(np.abs(found) / told['scale'], 0, 1)
    np.testing.assert_allclose(drawn[..., 3], 190 * share, atol=0.6)
    np.testing.assert_array_equal(drawn[..., 0] == 255, found > 0)


def decoded(uri: str) -> np.ndarray:
  data = base64.b64decode(uri.removeprefix('data:image/png;base64,'))
  return np.asarray(Image.open(io.BytesIO(data)))


def test_a_network_without_maps_or_blocks(config):
  config.model.variant = 'vgg16'
  config.model.width_multiplier = 0.02
  config.data.image_size = 32
  config = config_lib.resolve(config)
  network = network_lib.from_config(config)
  params, state = init_from_numpy(network, (32, 32, 1), 0)
  names = tuple('abcdefghij')
  member = trained.Trained(
    pathlib.Path(), config, network, 0, params, state, (32, 32, 1), names
  )
  told = answer.answer(member, np.zeros((28, 28, 1), np.uint8))
  assert told['blocks'] == []
  assert 'map' not in told['classes'][0]
  assert attribution.names(member)[0] == 'grad_cam'
  assert 'class_activation_map' not in attribution.names(member)
  assert len(told['stages']) == 5


@pytest.mark.parametrize('port', [-1, 65536])
def test_ports_that_are_none(port):
  with pytest.raises(UserError, match=f'--port={port} is no port'):
    demo.listen('127.0.0.1', port)


def test_bad_input_is_one_line(workdir, tmp_path, capsys, monkeypatch):
  pytest.importorskip('starlette', reason='pip install starlette uvicorn')
  pytest.importorskip('uvicorn', reason='pip install starlette uvicorn')

  def told(*flags):
    code = launch.main(['launch.py', '--mode=demo', *flags])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, '')
    assert captured.err.count('\n') == 1
    return captured.err

  assert '--workdir is missing' in told()
  assert 'holds no run' in told(f'--workdir={tmp_path}')
  with contextlib.closing(demo.listen('127.0.0.1', 0)) as listener:
    port = listener.getsockname()[1]
    line = told(f'--workdir={workdir}', f'--port={port}')
    assert f'--port={port} is in use by another program' in line
    assert '--port=0' in line
  empty = tmp_path / 'empty'
  empty.mkdir()
  shutil.copy(workdir / 'config.json', empty)
  assert 'no checkpoint' in told(f'--workdir={empty}', '--port=0')
  monkeypatch.setattr(demo, '_REQUIRED', ('starlette', 'no_such_module'))
  monkeypatch.setattr(
    demo.importlib.util, 'find_spec', lambda name: name == 'starlette' or None
  )
  assert 'pip install no_such_module' in told(f'--workdir={workdir}')


def test_examples_have_their_true_class(member):
  images, labels = pipeline.load_split(member.config, 'eval_split').read(
    np.arange(8)
  )
  names = [f'class {k}' for k in range(10)]  # as edited in classes.txt
  named = member._replace(class_names=names)
  found = demo.examples_of(demo.load_images(member.config, named), named)
  assert [name for _, name in found] == [f'class {k}' for k in labels]
  for (data, _), image in zip(found, images, strict=True):
    shown = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(shown, image[..., 0])


def test_examples_of_other_data_are_matched_by_name(member, tmp_path):
  names = member.class_names[::-1]
  np.savez(
    tmp_path / 'others.npz',
    test_images=np.zeros((3, 28, 28), np.uint8),
    test_labels=np.array([0, 1, 9]),
    class_names=np.array(names),
  )
  config = ml_collections.ConfigDict(member.config.to_dict())
  config.data.update(
    source='arrays',
    data_dir=str(tmp_path / 'others.npz'),
    train_split='test',
    eval_split='test',
  )
  others = demo.load_images(ml_collections.FrozenConfigDict(config), member)
  found = demo.examples_of(others, member)
  assert [name for _, name in found] == [names[0], names[1], names[9]]


class Host(str):
  """Host and port of the demo's process, which has the number `pid`."""

  def __new__(cls, text: str, pid: int):
    host = super().__new__(cls, text)
    host.pid = pid
    return host


@pytest.fixture(scope='module')
def page(workdir):
  """The demo as a process."""
  pytest.importorskip('starlette', reason='pip install starlette uvicorn')
  pytest.importorskip('uvicorn', reason='pip install starlette uvicorn')
  process = subprocess.Popen(
    [sys.executable, str(ROOT / 'launch.py'), '--mode=demo', '--port=0']
    + [f'--workdir={workdir}'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  lines = []
  for line in process.stdout:
    lines.append(line)
    if 'open http' in line:
      break
  match = re.search(r'http://(127\.0\.0\.1:\d+)', ''.join(lines))
  assert match, process.communicate()[1]
  yield Host(match[1], process.pid)
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert (process.returncode, out) == (0, 'ended\n')
  assert set(problems(err).splitlines()) <= {
    'warning: images in colour are converted to grey, in which the network was '
    'trained'
  }


def ask(host, method, path, body=b'', **headers):
  with contextlib.closing(http.client.HTTPConnection(host)) as connection:
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, reply.read(), dict(reply.getheaders())


def error_of(host, body, **headers):
  status, text, _ = ask(host, 'POST', '/answer', body, **headers)
  assert b'Traceback' not in text
  return status, json.loads(text)['error']


def assert_alike(found, expected):
  """Equal but for the rounding of another program."""
  if isinstance(expected, dict):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
      assert_alike(found[key], value)
  elif isinstance(expected, list | tuple):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
      assert_alike(one, other)
  elif isinstance(expected, float):
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
  elif not str(expected).startswith('data:'):  # pictures of these numbers
    assert found == expected


def test_server_by_requests(page, member):
  status, _, headers = ask(page, 'GET', '/')
  assert status == 200
  assert "default-src 'none'" in headers['content-security-policy']
  status, text, _ = ask(page, 'GET', '/about')
  about = json.loads(text)
  assert (about['variant'], about['step'], about['classes']) == ('tiny', 20, 10)
  dataset = pipeline.load_split(member.config, 'eval_split')
  _, labels = dataset.read(np.arange(8))
  assert about['examples'] == [dataset.class_names[k] for k in labels]
  status, example, _ = ask(page, 'GET', '/examples/3')
  status, text, _ = ask(page, 'POST', '/answer', example)
  assert status == 200
  image = np.asarray(Image.open(io.BytesIO(example)))[..., None]
  assert_alike(json.loads(text), answer.answer(member, image))
  _, text, _ = ask(page, 'POST', '/answer?invert=1', example)
  assert json.loads(text)['seen'] == answer.answer(member, 255 - image)['seen']

  status, text, _ = ask(page, 'POST', '/channels/stage_1/3')
  found = json.loads(text)
  assert [one['label'] for one in found['examples']] == [
    one['label'] for one in liked(member, 1, 'channel 3')
  ]
  for path in ('stage_1/8', 'stage_1/03', 'stage_1/-1', 'stage_3/0', 'stage_1'):
    assert ask(page, 'POST', f'/channels/{path}')[0] in (404, 405), path
  assert ask(page, 'GET', '/channels/stage_1/3')[0] == 404

  status, text, _ = ask(page, 'POST', '/explain/grad_cam/3?invert=1', example)
  assert status == 200
  told = attribution.attribute(member, 255 - image, 'grad_cam', 3)
  assert_alike(json.loads(text), told)
  for path in ('grad_cam/10', 'grad_cam/-1', 'grad_cam', 'channels/3', '/3'):
    assert ask(page, 'POST', f'/explain/{path}', example)[0] in (404, 405), path
  assert ask(page, 'POST', '/explain/occlusion/0', b'no picture')[0] == 415

  assert error_of(page, b'') == (422, 'The picture is empty.')
  assert error_of(page, b'no picture')[0] == 415
  # A kind that Pillow reads with the help of another program.
  postscript = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n'
  assert error_of(page, postscript)[0] == 415
  # Upright, whatever way the camera was held: left becomes top.
  wide = np.zeros((40, 80, 3), np.uint8)
  wide[:, :40] = 255
  file, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(wide).save(file, 'JPEG', exif=exif)
  _, text, _ = ask(page, 'POST', '/answer', file.getvalue())
  seen = decoded(json.loads(text)['seen'])
  assert seen[:12].min() > 200 > 50 > seen[16:].max()
  whole = png(np.random.default_rng(0).integers(0, 255, (64, 64, 3)))
  assert error_of(page, whole[:-2000]) == (422, 'The picture is damaged.')
  assert ask(page, 'GET', '/examples/99')[0] == 404
  assert ask(page, 'GET', '/../server.py')[0] == 404
  # A name of another site that was made to lead here.
  assert ask(page, 'GET', '/', Host='evil.example')[0] == 400


def resident(pid: int) -> int:
  """Returns the MiB that a process holds in memory."""
  status = pathlib.Path(f'/proc/{pid}/status').read_text()
  return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) >> 10


@pytest.mark.skipif(not os.path.exists('/proc/self/status'), reason='no /proc')
def test_memory_of_pictures(page):
  """A small file of 8,000 x 8,000 WebP is refused, a large PNG given back."""
  _, example, _ = ask(page, 'GET', '/examples/0')
  ask(page, 'POST', '/answer', example)
  before = resident(page.pid)
  file = io.BytesIO()
  Image.new('RGB', (8000, 8000)).save(file, 'WEBP', quality=0, method=0)
  status, text = error_of(page, file.getvalue())
  assert (status, '8000x8000 pixels of WEBP need' in text) == (413, True)
  file = io.BytesIO()
  Image.new('RGB', (6000, 6000)).save(file, 'PNG')  # 137 MiB and more
  assert ask(page, 'POST', '/answer', file.getvalue())[0] == 200
  print(f'resident: {before} MiB before, {resident(page.pid)} after')
  assert resident(page.pid) < before + 50


def test_uploads_have_bounds(page):
  # Told by its length: refused before it is sent.
  length = str(20 * 2**20 + 1)
  status, text = error_of(page, iter([]), **{'Content-Length': length})
  assert status == 413
  assert 'larger than 20 MiB' in text
  # Told by nothing: refused on the way.
  with socket.create_connection(page.split(':')) as connection:
    connection.sendall(
      b'POST /answer HTTP/1.1\r\nHost: localhost\r\n'
      b'Transfer-Encoding: chunked\r\n\r\n'
    )
    chunk = b'100000\r\n' + bytes(2**20) + b'\r\n'
    for _ in range(20):
      connection.sendall(chunk)
    connection.sendall(b'1\r\n0\r\n0\r\n\r\n')
    connection.settimeout(60)
    assert b' 413 ' in connection.recv(100)
  # 9 kB that would be 100 million pixels.
  file = io.BytesIO()
  Image.new('1', (10_000, 10_000)).save(file, 'PNG')
  assert len(file.getvalue()) < 20_000
  status, text = error_of(page, file.getvalue())
  assert status == 413
  assert '10000x10000 are more than 67 million pixels' in text


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  """A fresh Chromium that tells of each request it makes."""
  webdriver = pytest.importorskip('selenium.webdriver', reason='no selenium')
  chromium, driver = shutil.which('chromium'), shutil.which('chromedriver')
  if not (chromium and driver):
    pytest.skip('no chromium with chromedriver')
  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  for flag in (
    'headless=new no-sandbox disable-gpu disable-quic no-first-run '
    'disable-background-networking disable-component-update disable-sync '
    f'user-data-dir={tmp_path_factory.mktemp("chromium")}'
  ).split():
    options.add_argument(f'--{flag}')
  options.set_capability(
    'goog:loggingPrefs', {'performance': 'ALL', 'browser': 'ALL'}
  )
  service = webdriver.ChromeService(driver)
  with webdriver.Chrome(options=options, service=service) as started:
    started.set_window_size(1280, 1000)
    yield started


def wait(condition, seconds=60):
  """Returns what a condition comes to, when that is true."""
  end = time.monotonic() + seconds
  while not (value := condition()):
    assert time.monotonic() < end, 'the page did not come to it'
  return value


def liked(member, stage, number):
  """What channel 3 of stage 2 likes: 2, 'channel 3'."""
  likes = Likes(member, pipeline.load_split(member.config, 'eval_split'))
  return likes(f'stage_{stage}', int(number.split()[1]))['examples']


def test_page_in_a_browser(page, browser, member, tmp_path):
  from selenium.webdriver import ActionChains, Keys

  def find(selector):
    return browser.find_elements('css selector', selector)

  def text(selector):
    return find(selector)[0].text

  def classes():
    return [
      dict(zip(('name', 'share'), button.text.split('\n'), strict=True))
      for button in find('#classes button')
    ]

  def act_and_read(act):
    """Reads the status that follows, which is another one."""
    browser.execute_script(
      "document.getElementById('status').textContent = 'before'"
    )
    act()
    wait(lambda: text('#status').endswith('%') or text('#error'))
    return classes() if find('#result')[0].is_displayed() else []

  browser.get(f'http://{page}/')
  wait(lambda: len(find('#examples button')) == 8)
  assert 'tiny, trained on fashion_mnist for 20 steps' in text('#about')
  assert not find('#result')[0].is_displayed()

  # Uploads a picture.
  noise = np.random.default_rng(1).integers(0, 255, (50, 70, 3))
  path = tmp_path / 'photo.png'
  path.write_bytes(png(noise))
  upload = find('#file')[0]
  seen = act_and_read(lambda: upload.send_keys(str(path)))
  assert text('#truth') == ''
  (image,) = member.read([path])
  told = answer.answer(member, image)['classes']
  assert [one['name'] for one in seen] == [one['name'] for one in told]
  for one, other in zip(seen, told, strict=True):
    assert one['share'] == f'{100 * other["probability"]:.1f} %'
  assert text('#status') == f'{told[0]["name"]}, {seen[0]["share"]}'
  assert len(find('.stage')) == 2
  assert [b.text.split('\n')[0] for b in find('.block .cell')] == [
    '1x1',
    '3x3',
    '5x5',
    'pool_proj',
  ]
  for image in find('#result img'):
    assert browser.execute_script('return arguments[0].naturalWidth', image)

  # Another class, chosen by key: its map, its branches.
  overlay, cells = find('#overlay')[0], text('#blocks')
  before = overlay.get_attribute('src')
  find('#classes button')[2].send_keys(Keys.ENTER)
  assert text('#map-title') == f'Where it looks: {told[2]["name"]}'
  assert overlay.get_attribute('src') != before
  assert text('#blocks') != cells
  pressed = [
    b.get_attribute('aria-pressed') == 'true' for b in find('#classes button')
  ]
  assert pressed == [False, False, True] + [False] * 7

  # Another method: asked for once for each class.
  method = find('#method')[0]
  assert method.get_attribute('value') == 'class_activation_map'
  before = overlay.get_attribute('src')
  for name in ('Occlusion', 'Grad-CAM'):
    method.send_keys(name)
    wait(lambda n=name: text('#map-text').startswith(f'{n}: '), 120)
    assert overlay.get_attribute('src') != before
    assert overlay.get_attribute('alt') == f'{name} of {told[2]["name"]}'
    before = overlay.get_attribute('src')
  (image,) = member.read([path])
  drawn = attribution.attribute(member, image, 'grad_cam', told[2]['class'])
  np.testing.assert_allclose(decoded(before), decoded(drawn['map']), atol=1)
  method.send_keys('Class')
  assert 'Class activation map.' in text('#map-text')

  # A channel: where it fired, what it likes; a second click closes it.
  channel = find('.stage:nth-child(2) .channels button')[1]
  channel.click()
  (details,) = [one for one in find('.looks') if one.is_displayed()]
  number = channel.find_element('css selector', 'img').get_attribute('alt')
  assert details.text.startswith(f'stage_2, {number}')
  wait(lambda: len(find('.examples img')) == 6, 120)
  assert 'the best of 100 test images' in details.text
  labels = [one.text.split('\n')[0] for one in find('.examples figcaption')]
  assert labels == [example['label'] for example in liked(member, 2, number)]
  for image in find('.looks img'):
    assert browser.execute_script('return arguments[0].naturalWidth', image)
  (frame,), (shown,) = find('.fired .frame'), find('.fired figure img')
  assert 0 < frame.rect['width'] <= shown.rect['width'] + 1
  channel.click()
  assert not details.is_displayed()

  # Draws, with the mouse and with keys.
  canvas = find('#draw')[0]
  browser.execute_script('arguments[0].scrollIntoView()', canvas)
  stroke = (
    ActionChains(browser)
    .move_to_element_with_offset(canvas, -60, -60)
    .click_and_hold()
    .move_by_offset(120, 120)
    .release()
  )
  act_and_read(stroke.perform)
  drawn = find('.seen')[0].get_attribute('src')
  diagonal = np.diagonal(decoded(drawn))
  assert diagonal[10:18].min() > 200  # white from corner to corner
  assert decoded(drawn)[3:8, 20:].max() == 0
  act_and_read(lambda: canvas.send_keys(' ', Keys.ARROW_UP * 6, ' '))
  assert find('.seen')[0].get_attribute('src') != drawn

  # Too large: told politely, before it is sent; then all goes on.
  large = tmp_path / 'large.png'
  with open(large, 'wb') as file:
    file.truncate(20 * 2**20 + 1)
  act_and_read(lambda: upload.send_keys(str(large)))
  assert text('#error') == 'The picture is larger than 20 MiB: make it smaller.'
  broken = tmp_path / 'broken.png'
  broken.write_bytes(b'no picture')
  act_and_read(lambda: upload.send_keys(str(broken)))
  assert text('#error').startswith('This is no picture of a known kind')
  # What was computed before is not of this picture.
  assert not find('#result')[0].is_displayed()
  assert text('#status') == text('#truth') == ''
  find('#invert')[0].click()  # does not bring it back
  find('#invert')[0].click()
  assert text('#error').startswith('This is no picture of a known kind')
  seen = act_and_read(find('#examples button')[0].click)
  assert not find('#error')[0].is_displayed()
  assert find('#result')[0].is_displayed()
  is_right = seen[0]['name'] == 'Ankle boot'
  assert text('#truth') == (
    'True class: Ankle boot' + ('' if is_right else ', so this is an error')
  )
  before = find('.seen')[0].get_attribute('src')
  act_and_read(find('#invert')[0].click)
  after = find('.seen')[0].get_attribute('src')
  np.testing.assert_array_equal(decoded(after), 255 - decoded(before))

  # Narrow: nothing beside the screen.
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True},
  )
  width = 'return document.documentElement.scrollWidth'
  assert browser.execute_script(width) == 360

  # Nothing came from elsewhere, and nothing was wrong with the page.
  urls = set()
  for entry in browser.get_log('performance'):
    message = json.loads(entry['message'])['message']
    if message['method'] == 'Network.requestWillBeSent':
      urls.add(message['params']['request']['url'])
  own = (f'http://{page}/', 'data:', 'blob:')
  # Pages of the browser's own, before ours.
  urls = {url for url in urls if not url.startswith('chrome')}
  assert [url for url in urls if not url.startswith(own)] == []
  assert f'http://{page}/answer' in urls
  refused = 'status of 415'  # of the broken one, told to the user
  problems = [e['message'] for e in browser.get_log('browser')]
  assert [p for p in problems if refused not in p] == []
