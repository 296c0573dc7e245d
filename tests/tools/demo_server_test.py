"""The demo's server against clients that mean no good, without a network."""

import asyncio
import contextlib
import http.client
import io
import json
import logging
import socket
import threading
import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('starlette', reason='pip install starlette uvicorn')
pytest.importorskip('uvicorn', reason='pip install starlette uvicorn')

from googlenet.errors import UserError  # noqa: E402
from googlenet.tools.demo import server  # noqa: E402
from googlenet.tools.demo.answer import encode  # noqa: E402
from googlenet.tools.modes.demo import listen  # noqa: E402

PICTURE = encode(np.zeros((4, 4, 3), np.uint8))


def read(file):
  return np.asarray(Image.open(file))


@pytest.fixture
def host(caplog):
  """A server in a thread; at its end nothing was logged as an error."""
  app = server.make_app(
    {}, [(PICTURE, 'bag')], read, lambda image: {'n': image.size}
  )
  running = server.make_server(app)
  with contextlib.closing(listen('127.0.0.1', 0)) as listener:
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    yield listener.getsockname()
    running.should_exit = True
    thread.join()
  assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


def ask(host, method, path, body=b'', **headers):
  connection = http.client.HTTPConnection(*host)
  with contextlib.closing(connection):
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply.status, reply.read()


def test_only_its_own_page_may_send(host):
  name, port = host
  for origin in (f'http://{name}:{port}', f'https://{name}:{port}', None):
    headers = {'Origin': origin} if origin else {}
    status, text = ask(host, 'POST', '/answer', PICTURE, **headers)
    assert (status, json.loads(text)) == (200, {'n': 48})
  others = 'http://evil.example', 'null', f'http://{name}:1', '', 'http://['
  for origin in others:
    status, text = ask(host, 'POST', '/answer', PICTURE, Origin=origin)
    assert status == 403, origin
    assert json.loads(text)['error'].startswith('Only the page of this demo')


def channel(host, **headers):
  return ask(host, 'POST', '/channels/stage_1/3', **headers)


def test_channels_have_the_same_guards(monkeypatch, caplog):
  """Its own page only, few at a time; bad test images are told."""
  asked = []

  def likes(stage, number):
    asked.append((stage, number))
    if len(asked) > 1:
      raise UserError('image 7 is damaged')
    return {}

  app = server.make_app(
    {}, [], read, lambda image: {}, server.More(likes, {'stage_1': 4})
  )
  calls = []
  monkeypatch.setattr(server, 'release_free_memory', lambda: calls.append(1))
  running = server.make_server(app)
  with contextlib.closing(listen('127.0.0.1', 0)) as listener:
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    host = listener.getsockname()
    assert channel(host, Origin='http://evil.example')[0] == 403
    assert asked == []
    assert channel(host) == (200, b'{}')
    assert asked == [('stage_1', 3)]
    status, text = channel(host)
    assert (status, json.loads(text)) == (422, {'error': 'image 7 is damaged'})
    assert calls == [1, 1]
    assert ask(host, 'POST', '/channels/stage_1/4')[0] == 404
    running.should_exit = True
    thread.join()
  assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


PATHS = (
  *('/examples/' + '9' * 5000, '/examples/1', '/examples/-1', '/examples/'),
  *('/examples/00', '/examples/%D9%A0', '/examples/x', '/%00', '/a%0a'),
  *('/' + 'a' * 5000, '/..%2f..%2fserver.py', '/%ff', '/static/'),
)


def test_paths_that_lead_nowhere(host):
  assert [ask(host, 'GET', path)[0] for path in PATHS] == [404] * len(PATHS)
  assert ask(host, 'GET', '/examples/0') == (200, PICTURE)


HEAD = (
  b'POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n'
)


def test_an_aborted_upload(host):
  for _ in range(3):
    with socket.create_connection(host) as connection:
      connection.sendall(HEAD + b'some')
  assert ask(host, 'POST', '/answer', PICTURE)[0] == 200


def test_silent_connections(host, monkeypatch):
  """They lock nobody out, and are closed: at the start, in a head, after it."""
  monkeypatch.setattr(server, '_HEAD_SECONDS', 1.0)
  with contextlib.ExitStack() as stack:
    silent = [
      stack.enter_context(socket.create_connection(host)) for _ in range(40)
    ]
    silent[1].sendall(b'GET / HTTP/1.1\r\nHost: loc')
    silent[2].sendall(b'GET /about HTTP/1.1\r\nHost: localhost\r\n\r\nGET /ab')
    assert ask(host, 'POST', '/answer', PICTURE)[0] == 200
    for i, connection in enumerate(silent):
      got = b''
      while part := connection.recv(4096):
        got += part
      assert got.startswith(b'HTTP/1.1 200' if i == 2 else b'')
      assert bool(got) == (i == 2)


def test_an_upload_that_does_not_come(host, monkeypatch):
  monkeypatch.setattr(server, '_BODY_SECONDS', 0.2)
  with socket.create_connection(host) as connection:
    connection.sendall(HEAD + b'some')
    assert b' 408 ' in connection.recv(100)


def test_uploads_at_the_same_time(monkeypatch, caplog):
  monkeypatch.setattr(server, '_MAX_UPLOADS', 1)
  entered = threading.Event()
  body = server._body

  async def wait(request):
    entered.set()
    return await body(request)

  monkeypatch.setattr(server, '_body', wait)
  app = server.make_app({}, [], read, lambda image: {})
  running = server.make_server(app)
  with contextlib.closing(listen('127.0.0.1', 0)) as listener:
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    host = listener.getsockname()
    with socket.create_connection(host) as connection:
      connection.sendall(HEAD)
      entered.wait()
      status, text = ask(host, 'POST', '/answer', PICTURE)
      assert (status, b'busy' in text) == (503, True)
      connection.sendall(bytes(1000))
      assert b' 415 ' in connection.recv(100)
    assert ask(host, 'POST', '/answer', PICTURE)[0] == 200
    running.should_exit = True
    thread.join()


def picture(format, mode, side):
  file = io.BytesIO()
  Image.new(mode, (side, side)).save(file, format)
  return file.getvalue()


def test_the_decoded_size_has_a_bound(monkeypatch):
  """Before anything is decoded."""
  small = picture('WEBP', 'RGB', 1000)
  assert server.decode(small, read).shape == (1000, 1000, 3)
  monkeypatch.setattr(server, 'MAX_DECODED_BYTES', 24 * 1000**2)
  with pytest.raises(server.HTTPException) as error:
    server.decode(small, pytest.fail)
  assert error.value.status_code == 413
  assert '1000x1000 pixels of WEBP need 23 MiB' in error.value.detail
  assert server.decode(picture('PNG', 'RGB', 1000), read).size == 3 * 1000**2


def test_bounds_that_users_meet():
  """A photo of 50 megapixels, and the WebP of 100 bytes that took 1.6 GB."""
  for format, side, fits in [
    *(('JPEG', 7071, True), ('PNG', 7071, True), ('WEBP', 4500, True)),
    *(('WEBP', 8000, False), ('PNG', 8192, True)),
  ]:
    image = types.SimpleNamespace(size=(side, side), mode='RGB', format=format)
    needed = server.decoded_bytes(image)
    assert (needed <= server.MAX_DECODED_BYTES) == fits, (format, side)


def test_memory_is_given_back(monkeypatch):
  """After an answer, and after a picture that is refused."""
  calls = []
  monkeypatch.setattr(server, 'release_free_memory', lambda: calls.append(1))
  app = server.make_app({}, [], read, lambda image: {})
  (route,) = [r for r in app.routes if getattr(r, 'path', '') == '/answer']

  async def send(data):
    async def receive():
      return {'type': 'http.request', 'body': data, 'more_body': False}

    scope = {
      **{'type': 'http', 'method': 'POST', 'path': '/answer'},
      **{'headers': [], 'query_string': b''},
    }
    return await route.endpoint(server.Request(scope, receive))

  assert asyncio.run(send(PICTURE)).status_code == 200
  assert calls == [1]
  with pytest.raises(server.HTTPException):
    asyncio.run(send(b'no picture'))
  assert calls == [1, 1]
