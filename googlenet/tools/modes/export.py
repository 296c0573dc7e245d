"""--mode=export: a run becomes one file that other programs run."""

import json
import os

import jax
import jmp
import ml_collections
import numpy as np

from googlenet.model.initialization import count_parameters
from googlenet.tools.exports import arrays, onnx_graph, stablehlo
from googlenet.tools.exports.about import about, images_in_words
from googlenet.tools.inference import outputs, trained

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
) -> None:
  """Writes the newest checkpoint of a run as one file.

  Beside a file of StableHLO, which can tell nothing, one ending in .json says
  what the others hold themselves.

  Args:
    config: of the run.
    workdir: of the run; nothing is written there.
    started: unused.
    format: 'stablehlo', 'onnx' or 'safetensors'; '': as `output` ends.
    output: path of a new file.

  Raises:
    UserError: no checkpoint, no such output, a library is missing, or a layer
      that the format does not know: nothing is written.
  """
  del started
  outputs.check_one_process('export', jax.process_count())
  if output:
    outputs.check_new(output)
  format = outputs.format_of(output, format, FORMATS)
  outputs.check_new(output)
  beside = f'{output}.json'
  if format == 'stablehlo':
    outputs.check_new(beside)
  net = trained.load_run(workdir, config)
  lines = []
  if format == 'safetensors':
    arrays.write(output, net)
    lines.append(f"read by  googlenet.load('{output}'), or as arrays")
  elif format == 'onnx':
    data = onnx_graph.export(net)
    with outputs.written_aside(output) as file:
      file.write(data)
    lines.append(
      f'run by   onnxruntime 1.17 or newer (opset {onnx_graph.OPSET})'
    )
    policy = jmp.get_policy(config.train.precision)
    if np.dtype(policy.compute_dtype) != np.float32:
      lines.append(
        'computes in float32, where the run does in '
        f'{config.train.precision}: logits differ by its rounding'
      )
  else:
    data = stablehlo.export(net)
    told = json.dumps(about(net), indent=2) + '\n'
    with (
      outputs.written_aside(beside, 'w') as told_file,
      outputs.written_aside(output) as file,
    ):
      told_file.write(told)
      file.write(data)
    lines.append(
      f'run by   JAX {jax.__version__} or newer, on '
      f'{", ".join(stablehlo.PLATFORMS)}; for an older JAX export with that'
    )
    lines.append(f'told in  {beside}')
  print(
    f'model    {output}: {format}, {os.path.getsize(output) / 1e6:,.1f} MB, '
    f'{config.model.variant}, {count_parameters(net.params):,} parameters, '
    f'{config.model.num_classes} classes'
  )
  print(f'images   {images_in_words(net)}')
  print('\n'.join(lines))
  print(f'from     {net.path}: step {net.step:,}')
