"""What takes minutes: the real network on the real images.

python -m pytest -m slow
"""

import json
import pathlib

import numpy as np
import pytest
from run_files import losses

pytestmark = pytest.mark.slow


def train_accuracy(workdir: pathlib.Path) -> np.ndarray:
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  return np.array(
    [r['train/accuracy'] for r in records if 'train/accuracy' in r]
  )


@pytest.mark.parametrize('seed', range(5))
def test_default_recipe_leaves_the_plateau_early(launch_py, tmp_path, seed):
  """A plain network of this depth can sit at 10 % for epochs; here 60 steps do.

  Steps 41 to 60 are averaged.
  """
  done = launch_py(
    f'--config.seed={seed}',
    '--config.train.max_steps=60',
    '--config.logging.every_steps=20',
    '--config.data.eval_split=test[:500]',
    '--workdir=run',
    timeout=900,
    optimized=True,
  )
  assert done.returncode == 0, done.stderr
  assert train_accuracy(tmp_path / 'run')[-1] > 0.4


def test_plain_network_does_not_depend_on_the_number_of_devices(
  launch_py, tmp_path
):
  """At a tenth of the default rate.

  There, on one device, a rounding error in the initial weights alone moves the
  gradient norm by 1e-2 within 20 steps, as another number of devices does.
  """
  for devices in (1, 2, 4, 8):
    done = launch_py(
      '--config.train.max_steps=20',
      '--config.logging.every_steps=1',
      '--config.optimizer.learning_rate=0.005',
      '--config.data.image_size=32',
      '--config.train.batch_size=32',
      '--config.data.eval_split=test[:100]',
      f'--workdir={devices}',
      devices=devices,
      timeout=900,
      optimized=True,
    )
    assert done.returncode == 0, done.stderr
  one = losses(tmp_path / '1')
  assert one.shape == (20, 2)
  for devices in (2, 4, 8):
    np.testing.assert_allclose(losses(tmp_path / f'{devices}'), one, rtol=1e-3)
