"""The web server of the demo: a static page, and results for uploads as JSON.

It accepts connections only from this machine and limits the size of uploads.
The content security policy forbids the page to load anything from other sites.
"""

import io
import pathlib
import socket
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

HOST = '127.0.0.1'
MAX_BYTES = 20 * 2**20
MAX_PIXELS = 2**26  # phones take images of 50 megapixels
# The formats that browsers show. Others are rare, and for EPS Pillow would run
# an external program.
FORMATS = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP')
_STATIC = pathlib.Path(__file__).parent / 'static'
_MAX_REQUESTS = 16  # at the same time; each may hold an upload in memory
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
}

Read = Callable[[io.BytesIO], np.ndarray]
Answer = Callable[[np.ndarray], dict[str, Any]]


def make_app(
  about: dict[str, Any],
  examples: Sequence[tuple[bytes, str]],
  read: Read,
  answer: Answer,
) -> Starlette:
  """Makes the application.

  Args:
    about: facts about the run, for JSON.
    examples: images to choose from: PNG and true class.
    read: an open image file -> uint8 [H, W, C]; an exception means that the
      file is damaged.
    answer: uint8 [H, W, C] -> the data that the page shows, for JSON.
  """
  # One image at a time, to limit memory.
  lock = threading.Lock()

  def work(data: bytes, is_inverted: bool) -> dict[str, Any]:
    with lock, warnings.catch_warnings():
      # Pillow warns of large images and of unusual metadata.
      warnings.filterwarnings('ignore', module=r'PIL\.')
      image = decode(data, read)
      return answer(255 - image if is_inverted else image)

  async def describe(request: Request) -> Response:
    names = [name for _, name in examples]
    limits = {'max_bytes': MAX_BYTES, 'examples': names}
    return JSONResponse({**about, **limits})

  async def example(request: Request) -> Response:
    place = request.path_params['place']
    if place >= len(examples):
      raise HTTPException(404, 'there is no such example')
    return Response(examples[place][0], media_type='image/png')

  async def ask(request: Request) -> Response:
    data = await _body(request)
    is_inverted = request.query_params.get('invert') == '1'
    return JSONResponse(await run_in_threadpool(work, data, is_inverted))

  async def failed(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
      return JSONResponse({'error': error.detail}, error.status_code)
    text = 'Internal error: see the traceback in the terminal of the demo.'
    return JSONResponse({'error': text}, 500)

  return Starlette(
    routes=[
      Route('/about', describe),
      Route('/examples/{place:int}', example),
      Route('/answer', ask, methods=['POST']),
      Mount('/', StaticFiles(directory=_STATIC, html=True)),
    ],
    middleware=[
      Middleware(_WithHeaders),
      # Refuses requests that name another host (DNS rebinding).
      Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, 'localhost']),
    ],
    exception_handlers={HTTPException: failed, Exception: failed},
  )


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


async def _body(request: Request) -> bytes:
  """Reads a request body.

  Raises:
    HTTPException: the body is larger than `MAX_BYTES`.
  """
  length = request.headers.get('content-length', '')
  too_large = HTTPException(
    413, f'The picture is larger than {MAX_BYTES >> 20} MiB: make it smaller.'
  )
  if length.isdecimal() and int(length) > MAX_BYTES:
    raise too_large
  data = bytearray()
  async for chunk in request.stream():
    if len(data) + len(chunk) > MAX_BYTES:
      raise too_large
    data += chunk
  return bytes(data)


def decode(data: bytes, read: Read) -> np.ndarray:
  """Decodes an upload of at most `MAX_PIXELS`.

  Raises:
    HTTPException: the picture is too large or cannot be read.
  """
  if not data:
    raise HTTPException(422, 'The picture is empty.')
  try:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
      width, height = image.size
  except Image.DecompressionBombError as error:
    raise HTTPException(413, _too_many('These')) from error
  except Exception as error:  # Pillow raises a dozen types
    raise HTTPException(
      415, f'This is no picture of a known kind ({", ".join(FORMATS)}).'
    ) from error
  if width * height > MAX_PIXELS:
    raise HTTPException(413, _too_many(f'{width}x{height}'))
  try:
    return read(io.BytesIO(data))
  except Exception as error:  # Pillow again
    raise HTTPException(422, 'The picture is damaged.') from error


def _too_many(size: str) -> str:
  return (
    f'{size} are more than {MAX_PIXELS // 10**6} million pixels: make the '
    'picture smaller.'
  )


def serve(app: Starlette, listener: socket.socket) -> None:
  """Serves requests until Ctrl-C or SIGTERM."""
  server = uvicorn.Server(
    uvicorn.Config(
      app,
      log_level='warning',
      access_log=False,
      server_header=False,
      limit_concurrency=_MAX_REQUESTS,
      timeout_graceful_shutdown=1,
    )
  )
  server.run(sockets=[listener])
