"""--mode=export: writes a run as one file that other programs can use."""

import json
import os

import jax
import ml_collections
import numpy as np

from googlenet.errors import UserError
from googlenet.model.initialization import count_parameters
from googlenet.model.precision import get_policy
from googlenet.tools.exports import inference, onnx_graph, stablehlo
from googlenet.tools.inference import arrays, outputs, predict, trained
from googlenet.tools.inference.about import about, images_in_words

Config = ml_collections.FrozenConfigDict

FORMATS = {
  '.stablehlo': 'stablehlo',
  '.onnx': 'onnx',
  '.safetensors': 'safetensors',
}


def run(
  config: Config,
  workdir: str,
  started: float,
  format: str = '',
  output: str = '',
  views: bool = True,
  precision: str = inference.FLOAT32,
) -> None:
  """Writes the newest checkpoint of a run as one file, without auxiliary heads.

  The file contains a description of the network. StableHLO has no place for
  it, so it is written to a .json file beside it.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    format: 'stablehlo', 'onnx' or 'safetensors'; '': given by the ending of
      `output`.
    output: path of a new file.
    views: whether a StableHLO program averages over the views of evaluation;
      an ONNX program always computes each image once.
    precision: what the exported network computes in: 'float32', or 'run' for
      `train.precision`.

  Raises:
    UserError: the run has no checkpoint, the output cannot be made, a library
      is missing, or the format cannot represent a layer; nothing is written.
  """
  del started
  outputs.check_one_process('export', jax.process_count())
  inference.check_precision(precision)
  if output:
    outputs.check_new(output)
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  beside = f'{output}.json'
  if format == 'stablehlo':
    outputs.check_new(beside)
  if (
    format == 'onnx' and precision == inference.RUN and not _is_float32(config)
  ):
    raise UserError(
      f'--precision={precision}: an ONNX file computes in float32, and the run '
      f'in {config.train.precision}: leave out --precision, or give another '
      '--format'
    )
  saved = trained.load_run(workdir, config)
  net = inference.for_inference(saved, precision)
  chosen = predict.views_of(config.eval, views)
  if format == 'onnx' or chosen.crops > 1 and format == 'stablehlo':
    # The ONNX graph implements no views, and crops are cut out of files.
    chosen = predict.ONE_VIEW
  data = b''
  if format == 'safetensors':
    chosen = net.views  # `net.predict` takes them from the config in the file
  elif format == 'onnx':
    data = onnx_graph.export(net)
  else:
    data = stablehlo.export(net, chosen)
  about_net = _precision_in_words(saved, precision) + _heads(saved, net)
  if format == 'safetensors':
    arrays.write(output, net)
    lines = [f"read by  googlenet.load('{output}'), or as arrays"]
  elif format == 'onnx':
    with outputs.written_aside(output) as file:
      file.write(data)
    lines = [f'run by   onnxruntime 1.17 or newer (opset {onnx_graph.OPSET})']
  else:
    description = json.dumps(about(net, chosen), indent=2) + '\n'
    with (
      outputs.written_aside(beside, 'w') as description_file,
      outputs.written_aside(output) as file,
    ):
      description_file.write(description)
      file.write(data)
    lines = [
      f'run by   JAX {jax.__version__} or newer, on '
      f'{", ".join(stablehlo.PLATFORMS)}; an older JAX needs an export by that '
      'version',
      f'about    {beside}: description of images, outputs and classes',
    ]
  print(
    f'model    {output}: {format}, {os.path.getsize(output) / 1e6:,.1f} MB, '
    f'{config.model.variant}, {count_parameters(net.params):,} parameters, '
    f'{config.model.num_classes} classes'
  )
  print(f'images   {images_in_words(net)}')
  print('\n'.join([*lines, *about_net, *_views_in_words(net.views, chosen)]))
  print(f'from     {net.path}: step {net.step:,}')


def _is_float32(config: Config) -> bool:
  policy = get_policy(config.train.precision)
  return np.dtype(policy.compute_dtype) == np.float32


def _precision_in_words(saved: trained.Trained, precision: str) -> list[str]:
  """Returns a line on what float32 changes, if the run computes otherwise."""
  if _is_float32(saved.config):
    return []
  as_run = inference.for_inference(saved, inference.RUN)
  largest, of = inference.difference(as_run, inference.for_inference(saved))
  differ = f'differ by up to {largest:.2g} of {of:.2g} (64 random images)'
  own = saved.config.train.precision
  if precision == inference.RUN:
    return [f'computes in {own}, as the run; logits in float32 {differ}']
  return [f'computes in float32; logits of the run itself, in {own}, {differ}']


def _heads(saved: trained.Trained, net: trained.Trained) -> list[str]:
  """Returns a line on auxiliary heads, if the run has some."""
  count = count_parameters(saved.params) - count_parameters(net.params)
  what = f'{count:,} parameters, which only training uses'
  return [f'left out auxiliary heads: {what}'] if count else []


def _views_in_words(
  evaluated: predict.Views, exported: predict.Views
) -> list[str]:
  """Returns a line about views, if evaluation averages several."""
  if evaluated.count == 1:
    return []
  of = f'{evaluated.count} views of each image ({evaluated.fields})'
  if exported == evaluated:
    return [
      f'views    averages {of}, as in evaluation, '
      f'which takes {evaluated.count} times as long'
    ]
  return [
    f'views    computes each image once; evaluation averages {of}, which is '
    f'more accurate and takes {evaluated.count} times as long'
  ]
