"""The web server of the demo: a static page, and results for uploads as JSON.

It accepts connections only from this machine, and uploads only from its own
page or from programs that are no browsers. Uploads have limits of time, size
and decoded size. The content security policy forbids the page to load anything
from other sites.
"""

import asyncio
import contextlib
import io
import pathlib
import socket
import threading
import types
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from googlenet.data.files import decoded_bytes
from googlenet.errors import UserError
from googlenet.runtime.allocator import release_free_memory

HOST = '127.0.0.1'
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 2**26  # phones take images of 50 megapixels
MAX_DECODED_BYTES = 2**29  # of memory that decoding takes
# The formats that browsers show. Others are rare, and for EPS Pillow would run
# an external program.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP')
_STATIC = pathlib.Path(__file__).parent / 'static'
_MAX_UPLOADS = 16  # at the same time, each in memory
_MAX_CONNECTIONS = 256  # also of browsers that say nothing yet
# A request must be there in time, from its first byte to the last of its head
# (the body: of an upload). All clients are on this machine.
_HEAD_SECONDS, _BODY_SECONDS = 10.0, 60.0
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
}

Read = Callable[[io.BytesIO], np.ndarray]
Answer = Callable[[np.ndarray], dict[str, Any]]


class More(NamedTuple):
  """What the page asks for when something is clicked.

  Attributes:
    likes: stage, channel -> what the page shows of a channel, for JSON.
    channels: number of channels of the stages that `likes` knows.
    explain: image, method, class -> a map to draw over the image, for JSON.
    methods: that `explain` knows.
    num_classes: that `explain` knows.
  """

  likes: Callable[[str, int], dict[str, Any]] | None = None
  channels: Mapping[str, int] = types.MappingProxyType({})
  explain: Callable[[np.ndarray, str, int], dict[str, Any]] | None = None
  methods: Sequence[str] = ()
  num_classes: int = 0


NOTHING_MORE = More()


def make_app(
  about: dict[str, Any],
  examples: Sequence[tuple[bytes, str]],
  read: Read,
  answer: Answer,
  more: More = NOTHING_MORE,
) -> Starlette:
  """Makes the application.

  Args:
    about: facts about the run, for JSON.
    examples: images to choose from: PNG and true class.
    read: an open image file -> uint8 [H, W, C]; an exception means that the
      file is damaged.
    answer: uint8 [H, W, C] -> the data that the page shows, for JSON.
    more: what else the page may ask for.
  """
  # One computation at a time, to limit memory.
  lock = threading.Lock()

  slots = asyncio.Semaphore(_MAX_UPLOADS)

  def locked(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    with lock, warnings.catch_warnings():
      # Pillow warns of large images and of unusual metadata.
      warnings.filterwarnings('ignore', module=r'PIL\.')
      try:
        return work()
      except UserError as error:  # a test image that cannot be read
        raise HTTPException(422, str(error)) from error
      finally:  # the heap keeps it otherwise, see `tune_allocator`
        release_free_memory()

  async def alone(work: Callable[[], dict[str, Any]]) -> Response:
    return JSONResponse(await run_in_threadpool(locked, work))

  def picture(data: bytes, request: Request) -> np.ndarray:
    image = decode(data, read)
    is_inverted = request.query_params.get('invert') == '1'
    return 255 - image if is_inverted else image

  async def describe(request: Request) -> Response:
    names = [name for _, name in examples]
    limits = {'max_bytes': MAX_BYTES, 'examples': names}
    return JSONResponse({**about, **limits, 'likes': bool(more.channels)})

  async def example(request: Request) -> Response:
    names = [str(place) for place in range(len(examples))]
    place = request.path_params['place']
    if place not in names:
      raise HTTPException(404, 'there is no such example')
    return Response(examples[int(place)][0], media_type='image/png')

  @contextlib.asynccontextmanager
  async def slot(request: Request) -> AsyncIterator[None]:
    check_origin(request)
    if slots.locked():
      raise HTTPException(503, 'The demo is busy: try again in a moment.')
    async with slots:
      yield

  async def ask(request: Request) -> Response:
    async with slot(request):
      data = await _body(request)
      return await alone(lambda: answer(picture(data, request)))

  async def explain(request: Request) -> Response:
    method, label = (request.path_params[key] for key in ('method', 'label'))
    if method not in more.methods or not _is_below(label, more.num_classes):
      raise HTTPException(404, 'there is no such method or class')
    async with slot(request):
      data = await _body(request)
      return await alone(
        lambda: more.explain(picture(data, request), method, int(label))
      )

  async def channel(request: Request) -> Response:
    stage, number = (request.path_params[key] for key in ('stage', 'channel'))
    if not _is_below(number, more.channels.get(stage, 0)):
      raise HTTPException(404, 'there is no such channel')
    async with slot(request):
      return await alone(lambda: more.likes(stage, int(number)))

  async def aborted(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it

  async def failed(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
      return JSONResponse({'error': error.detail}, error.status_code)
    text = 'Internal error: see the traceback in the terminal of the demo.'
    return JSONResponse({'error': text}, 500)

  return Starlette(
    routes=[
      Route('/about', describe),
      Route('/examples/{place}', example),
      Route('/answer', ask, methods=['POST']),
      Route('/explain/{method}/{label}', explain, methods=['POST']),
      Route('/channels/{stage}/{channel}', channel, methods=['POST']),
      Mount('/', StaticFiles(directory=_STATIC, html=True)),
    ],
    middleware=[
      Middleware(_WithHeaders),
      # Refuses requests that name another host (DNS rebinding).
      Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, 'localhost']),
    ],
    exception_handlers={
      ClientDisconnect: aborted,
      HTTPException: failed,
      Exception: failed,
    },
  )


def _is_below(text: str, count: int) -> bool:
  """Whether a text is a number from 0 to count - 1, written plainly."""
  return text in map(str, range(count))


class _WithHeaders:
  """Adds the same headers to every response."""

  def __init__(self, app: Any):
    self._app = app

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    async def send_with_headers(message: Any) -> None:
      if message['type'] == 'http.response.start':
        MutableHeaders(scope=message).update(_HEADERS)
      await send(message)

    await self._app(scope, receive, send_with_headers)


def check_origin(request: Request) -> None:
  """Refuses requests that the page of another site makes.

  Browsers name the site of such a page; other programs name none.

  Raises:
    HTTPException: the origin is not this server.
  """
  origin = request.headers.get('origin')
  own = request.headers.get('host')
  # `scheme://host:port`; urllib would raise for texts such as 'http://['.
  if origin is not None and origin.partition('://')[2] != own:
    raise HTTPException(403, 'Only the page of this demo may send pictures.')


async def _body(request: Request) -> bytes:
  """Reads a request body.

  Raises:
    HTTPException: the body is larger than `MAX_BYTES` or takes too long.
    ClientDisconnect: the client has closed the connection.
  """
  length = request.headers.get('content-length', '')
  too_large = HTTPException(
    413, f'The picture is larger than {MAX_BYTES >> 20} MiB: make it smaller.'
  )
  if length.isdecimal() and int(length) > MAX_BYTES:
    raise too_large
  data = bytearray()
  try:
    async with asyncio.timeout(_BODY_SECONDS):
      async for chunk in request.stream():
        if len(data) + len(chunk) > MAX_BYTES:
          raise too_large
        data += chunk
  except TimeoutError:
    raise HTTPException(408, 'The picture took too long to arrive.') from None
  return bytes(data)


def decode(data: bytes, read: Read) -> np.ndarray:
  """Decodes an upload of at most `MAX_PIXELS` and `MAX_DECODED_BYTES`.

  Raises:
    HTTPException: the picture is too large or cannot be read.
  """
  if not data:
    raise HTTPException(422, 'The picture is empty.')
  try:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      width, height = image.size
      format, needed = image.format, decoded_bytes(image)
  except Image.DecompressionBombError as error:
    raise HTTPException(413, _too_many('These')) from error
  except Exception as error:  # Pillow raises a dozen types
    raise HTTPException(
      415, f'This is no picture of a known kind ({", ".join(FORMATS)}).'
    ) from error
  if width * height > MAX_PIXELS:
    raise HTTPException(413, _too_many(f'{width}x{height}'))
  if needed > MAX_DECODED_BYTES:
    raise HTTPException(
      413,
      f'{width}x{height} pixels of {format} need {needed >> 20} MiB, more than '
      f'{MAX_DECODED_BYTES >> 20}: make the picture smaller, or a JPEG.',
    )
  try:
    return read(io.BytesIO(data))
  except Exception as error:  # Pillow again
    raise HTTPException(422, 'The picture is damaged.') from error


def _too_many(size: str) -> str:
  return (
    f'{size} are more than {MAX_PIXELS // 10**6} million pixels: make the '
    'picture smaller.'
  )


class _Protocol(H11Protocol):
  """HTTP that closes connections on which no request arrives in time."""

  def connection_made(self, transport: asyncio.Transport) -> None:
    super().connection_made(transport)
    self._expect_request()

  def on_response_complete(self) -> None:
    self._expect_request()
    super().on_response_complete()

  def _expect_request(self) -> None:
    self.loop.call_later(_HEAD_SECONDS, self._close_without, self.cycle)

  def _close_without(self, before: Any) -> None:
    if self.cycle is before:  # still that of the last request, or None
      self.transport.close()


def make_server(app: Starlette) -> uvicorn.Server:
  """Returns the server of an application."""
  return uvicorn.Server(
    uvicorn.Config(
      app,
      http=_Protocol,
      ws='none',
      log_level='warning',
      access_log=False,
      server_header=False,
      limit_concurrency=_MAX_CONNECTIONS,
      timeout_graceful_shutdown=1,
    )
  )


def serve(app: Starlette, listener: socket.socket) -> None:
  """Serves requests until Ctrl-C or SIGTERM."""
  make_server(app).run(sockets=[listener])
