"""Networks by name, from a server on this machine."""

import functools
import hashlib
import http.server
import os
import shutil
import threading

import numpy as np
import pytest
from conftest import ROOT
from networks import model_config
from run_files import files_under
from small_run import untrained

import googlenet
import launch
from googlenet import config as config_lib
from googlenet.cli import command_line
from googlenet.errors import UserError
from googlenet.io import array_files, named, pretrained, workdir
from googlenet.model.initialization import abstract_init, init_from_numpy
from googlenet.model.network import make_network
from googlenet.runtime import progress
from googlenet.tools import hub, publish
from googlenet.tools.weights import names
from googlenet.train import finetune

BEST = ROOT / 'pretrained/fmnist28_long'


class Server:
  """Serves a folder at 127.0.0.1; `cut` are names whose answers break off."""

  def __init__(self, folder):
    self.folder, self.asked, self.cut = folder, [], ()
    server = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        server.asked.append(self.path)
        path = folder / self.path.lstrip('/')
        if not path.is_file():
          self.send_error(404)
          return
        data = path.read_bytes()
        self.send_response(200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(
          data[: len(data) // 2] if path.name in server.cut else data
        )

      def log_message(self, *_):
        pass

    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.url = f'http://127.0.0.1:{self._server.server_port}'
    serve = functools.partial(self._server.serve_forever, poll_interval=0.01)
    self._thread = threading.Thread(target=serve)
    self._thread.start()

  def stop(self):
    if self._thread.is_alive():
      self._server.shutdown()
      self._server.server_close()
      self._thread.join()


@pytest.fixture
def server(tmp_path, monkeypatch):
  """A server, and an empty cache."""
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
    monkeypatch.delenv(name, raising=False)
  (tmp_path / 'served').mkdir()
  server = Server(tmp_path / 'served')
  monkeypatch.setenv('HF_ENDPOINT', server.url)
  monkeypatch.setattr(hub, 'TORCHVISION_URL', server.url)
  monkeypatch.setattr(hub, 'FID_URL', server.url)
  yield server
  server.stop()


def serve_run(server):
  """Serves a published run as hf:someone/net; returns where it lies."""
  there = server.folder / 'someone/net/resolve/main'
  shutil.copytree(BEST, there)
  return there


def refused(name):
  """Returns the message of a download that fails and leaves nothing."""
  with pytest.raises(UserError) as error:
    hub.run_of(name)
  assert '\n' not in str(error.value)
  assert not [p for p in named.cache().rglob('*') if p.is_file()]
  return str(error.value)


# ---- Published runs.


def test_a_published_run_is_downloaded_once(server):
  there = serve_run(server)
  folder = hub.run_of('hf:someone/net')
  files = [name for name in files_under(there) if name != 'checkpoints']
  assert files_under(named.in_cache('hf:someone/net')) == files_under(there)
  assert len(server.asked) == len(files)
  server.stop()  # from the cache, without any request
  assert hub.run_of('hf:someone/net') == folder
  assert pretrained.read_run(folder)[1].step == 9360


def test_another_file_than_listed_is_refused(server):
  path = serve_run(server) / 'config.json'
  path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
  line = refused('hf:someone/net')
  assert 'config.json is not the file that is expected' in line
  assert 'SHA-256' in line


def test_a_cut_connection_is_told_and_the_next_try_is_whole(server):
  serve_run(server)
  server.cut = ('metrics.jsonl',)
  line = refused('hf:someone/net')
  assert 'metrics.jsonl broke (after' in line
  assert 'repeat the command' in line
  server.cut = ()
  assert hub.run_of('hf:someone/net')


def test_a_run_that_is_not_there(server):
  assert 'SHA256SUMS cannot be downloaded: the server answers 404' in refused(
    'hf:someone/else'
  )


def test_offline_the_place_is_told(server):
  server.stop()
  line = refused('hf:someone/net')
  assert 'cannot be reached' in line
  assert f'put its files at {named.in_cache("hf:someone/net")}' in line


def test_a_large_file_is_shown(server, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(progress.Progress.__init__, '__defaults__', (0.0,))
  (server.folder / 'net.pth').write_bytes(bytes(9 * 2**20 - 1))
  (server.folder / 'sums').write_bytes(b'small')
  hub.download(f'{server.url}/sums', tmp_path / 'sums')
  assert capsys.readouterr().err == ''
  hub.download(f'{server.url}/net.pth', tmp_path / 'net.pth')
  first, *lines = capsys.readouterr().err.splitlines()
  assert first == f'download {server.url}/net.pth: 9 MiB'
  assert [line.split(', ')[0] for line in lines] == [
    f'download net.pth: {i}/9 MiB' for i in range(1, 10)
  ]


def test_what_a_killed_download_has_left_is_removed(tmp_path):
  for name in ('.new-old', '.new-begun', 'net'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'part').write_bytes(b'')
    os.utime(tmp_path / name / 'part', (0, 0))
    os.utime(tmp_path / name, (0, 0))
  os.utime(tmp_path / '.new-begun/part')
  with pytest.raises(KeyboardInterrupt), hub._made_aside(tmp_path / 'other'):
    raise KeyboardInterrupt
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    '.new-begun',
    'net',
  ]


@pytest.mark.parametrize(
  'listed', ['../../evil', '/evil', 'checkpoints/../../evil', 'evil.py']
)
def test_only_files_of_a_run_are_written(server, listed):
  there = serve_run(server)
  digest = hashlib.sha256(b'x').hexdigest()
  with open(there / publish.SUMS, 'a') as file:
    file.write(f'{digest}  {listed}\n')
  hub.run_of('hf:someone/net')
  assert files_under(named.in_cache('hf:someone/net')) == files_under(there)
  assert not any('evil' in path for path in server.asked)


def test_what_is_no_list_or_too_large_is_refused(server, monkeypatch):
  there = serve_run(server)
  (there / publish.SUMS).write_text('<html>')
  assert 'is not the list of a run' in refused('hf:someone/net')
  monkeypatch.setattr(hub, '_MAX_TEXT', 5)
  assert 'more than 5 bytes' in refused('hf:someone/net')
  monkeypatch.setenv('HF_ENDPOINT', 'file:///etc')
  assert 'HF_ENDPOINT=file:///etc is not allowed' in refused('hf:someone/net')


@pytest.mark.parametrize(
  'name',
  ['hf:../x', 'hf:a/..', 'torchvision/..', 'hf:a/b/c', 'hf:a', 'https://a/b'],
)
def test_names_that_stand_for_nothing_are_paths(name):
  assert not named.is_remote(name)
  assert hub.run_of(name) == name


# ---- torchvision.


def serve_googlenet(server, monkeypatch):
  """Serves random weights in place of the published ones."""
  network = make_network(
    model_config(variant='torchvision', num_classes=1000, aux_heads='off')
  )
  entries = names.make_entries(
    names.SCHEMES['torchvision'],
    network.architecture,
    *abstract_init(network, (224, 224, 3)),
  )
  rng = np.random.default_rng(0)
  arrays = {
    entry.name: rng.uniform(0.1, 1, entry.shape).astype(np.float32)
    for entry in entries
  }
  path = server.folder / 'made.safetensors'
  array_files.write(path, arrays)
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  file = f'googlenet-{digest[:8]}.safetensors'
  path.rename(server.folder / file)
  known = {'torchvision/googlenet': hub.Weights('torchvision', file)}
  monkeypatch.setattr(hub, 'PUBLISHED', known)
  return file, arrays


@pytest.mark.slow
def test_torchvision_by_name(server, monkeypatch):
  file, arrays = serve_googlenet(server, monkeypatch)
  folder = hub.run_of('torchvision/googlenet')
  assert server.asked == [f'/{file}']
  config = config_lib.load(f'{folder}/config.json')
  assert config.model.variant == 'torchvision'
  assert (config.data.image_size, config.data.resize) == (224, 256)
  assert workdir.read_classes(folder, 1000)[0] == 'tench'
  _, saved = pretrained.read_run(folder)
  w = saved.params['logits']['w']
  np.testing.assert_array_equal(w, arrays['fc.weight'].T)
  server.stop()
  assert hub.run_of('torchvision/googlenet') == folder
  assert hub.weights_of('torchvision/googlenet').endswith(file)


@pytest.mark.parametrize(
  ('name', 'digits'),
  [
    ('torchvision/googlenet', '1378be20'),
    ('pytorch-fid/inception', '6726825d0af5f729'),
  ],
)
def test_weights_that_are_not_the_published_ones(name, digits, server):
  """File names have the first digits of their SHA-256."""
  file = hub.PUBLISHED[name].file
  assert f'-{digits[:8]}.' in file
  (server.folder / file).write_bytes(b'other')
  line = refused(name)
  assert f'should begin with {digits}' in line
  server.stop()
  line = refused(name)
  place = named.cache() / name.partition('/')[0] / file
  assert f'or put {server.url}/{file} at {place}' in line
  place.write_bytes(b'other')
  with pytest.raises(UserError, match='begins with d9298a10; delete it'):
    hub.run_of(name)


def test_unknown_names_are_told(server):
  assert "did you mean 'torchvision/googlenet'?" in refused(
    'torchvision/gogglenet'
  )
  assert server.asked == []


# ---- Networks that come with the project.


def test_pretrained_by_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert named.find('fmnist28_long') == str(BEST)
  assert googlenet.load('fmnist28_long').step == 9360
  (tmp_path / 'fmnist28_long').mkdir()  # a folder goes before it
  assert named.find('fmnist28_long') == 'fmnist28_long'
  assert named.find('README.md') == 'README.md'
  assert named.find('fmnist28') == 'fmnist28'


def test_fine_tuning_takes_names(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  network = make_network(config_lib.load(BEST / 'config.json').model)
  params, state = init_from_numpy(network, (28, 28, 1), 0)
  *_, lines = finetune.load('fmnist28_long', network, params, state)
  assert lines[0].startswith(f'from     {BEST}')


def parsed(*flags):
  return command_line.parse(launch.FLAGS, ['launch.py', *flags])


def test_workdirs_by_name(server, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  serve_run(server)
  found = parsed('--mode=evaluate', '--workdir=fmnist28_fast,hf:someone/net')
  assert found.workdir == str(ROOT / 'pretrained/fmnist28_fast')
  ((other, _),) = found.options['others']
  assert other == str(named.in_cache('hf:someone/net'))
  new = parsed(
    f'--config={ROOT}/configs/fmnist96.py',
    '--workdir=fmnist28_long',
    '--config.finetune.from_workdir=hf:someone/net',
  )
  assert new.workdir == 'fmnist28_long'  # a new run of that name
  assert new.config.finetune.from_workdir == 'hf:someone/net'


def test_a_run_of_ones_own_is_read_as_before(tmp_path):
  folder = untrained(tmp_path / 'run')
  assert hub.run_of(folder) == str(folder)
  assert googlenet.load(folder).step == 0
