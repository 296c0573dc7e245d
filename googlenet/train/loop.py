"""Training and evaluation: the outline of a run."""

import os
import sys
import time
from typing import Any

import ml_collections

from googlenet import config as config_lib
from googlenet.data import pipeline
from googlenet.io import metrics as metrics_lib
from googlenet.io.saver import Saver, WriteError
from googlenet.io.writer import Writer
from googlenet.model.initialization import count_parameters
from googlenet.runtime import compilation, memory, preemption
from googlenet.runtime.terminal import warn
from googlenet.train import messages, resume, setup
from googlenet.train.epochs import Training
from googlenet.train.profiling import Profiler
from googlenet.train.recorder import Recorder

Config = ml_collections.FrozenConfigDict


def train_and_evaluate(
  config: Config,
  workdir: str | os.PathLike[str],
  started: float | None = None,
  allow_config_change: bool = False,
) -> dict[str, Any]:
  """Trains the network of a config and scores it.

  Args:
    config: resolved.
    workdir: a folder without a run, made by the first record; or with one,
      which is continued.
    started: `time.time()` at the start of the program, to tell how long the
      first step took from there.
    allow_config_change: whether a run may be continued with another config.

  Returns:
    What result.json holds.

  Raises:
    UserError: bad input (nothing was written), or a loss that is not finite.
    Stopped: a signal asked for the end; the run can be continued.
    WriteError: what it makes cannot be written; it can be continued.
    OutOfMemoryError: a device has not the memory for it.
  """
  started = time.time() if started is None else started
  with preemption.Stopper() as stopper:
    found = resume.look(workdir, config, allow_config_change)
    if found.result is not None:
      if found.lock is not None:
        found.lock.release()
        print(messages.finished(found.result, workdir), flush=True)
      return found.result
    try:
      with (
        compilation.told_on(sys.stdout),
        memory.explained('training'),
        metrics_lib.divergence_recorded(workdir),
      ):
        return _train(config, workdir, started, found, stopper)
    except memory.OutOfMemoryError as error:
      if not os.path.exists(os.path.join(workdir, 'config.json')):
        raise
      what = 'continued training' if error.what == 'training' else error.what
      raise memory.OutOfMemoryError(
        error.facts,
        what,
        f'; with --allow_config_change the run in {workdir} goes on',
      ) from error
    finally:
      if found.lock is not None:
        found.lock.release()


def _train(
  config: Config,
  workdir: str | os.PathLike[str],
  started: float,
  found: resume.Found,
  stopper: preemption.Stopper,
) -> dict[str, Any]:
  run = _told(setup.build(config))
  writer = Writer(
    workdir,
    config_lib.to_json(config),
    run.train.dataset.class_names,
    config.logging.tensorboard,
  )
  screen = metrics_lib.Screen(sys.stdout, run.durations.num_steps)
  start = resume.first_start(run.state)
  if found.is_run:
    start = resume.restore(
      workdir, config, resume.describe_data(run.train.dataset), run.state, warn
    )
    run = run._replace(state=start.state)
  for line in messages.describe(run, workdir):
    screen.line(line)
  recorder = Recorder(config, run.durations, writer, screen, started)
  if start.about is not None:
    recorder.restore(start.step, start.about['course'], start.progress)
  profiler = Profiler(
    config,
    run.network,
    run.train_step,
    pipeline.image_shape(config, run.train.dataset)[-1],
    workdir,
    recorder,
    screen,
  )
  saver = Saver(workdir, config.checkpoint.keep, warn)
  training = Training(run, writer, recorder, profiler, saver, stopper)
  try:
    if found.is_run:
      screen.line(messages.resumed(start))
      if found.lock is not None:
        writer.resume(found.lock, start.metrics_bytes, start.summary_stop)
    state = training.train(start)
    result = {
      **recorder.result(run.durations.num_steps),
      **training.best_result(),
      'parameters': count_parameters(state.params),
      'kernels': run.network.kernels.name,
    }
    writer.write_result(result)
  except OSError as error:
    raise WriteError(
      f'{" ".join(str(error).split())}: training stopped; the same command '
      f'with --workdir={workdir} goes on from the last checkpoint'
    ) from error
  finally:
    profiler.close()
    screen.close()
    saver.poll(wait=True)
    writer.close()
  for line in messages.describe_result(result, workdir):
    screen.line(line)
  return result


def _told(run: setup.Run) -> setup.Run:
  """Returns a run that tells when its training and evaluation are compiled."""

  def training_step(state: Any, batch: Any, seed: Any, size: int = 0) -> str:
    del state, batch, seed
    return 'training step' + (f' for {size} pixels' if size else '')

  options = run.network.kernels.compiler_options
  return run._replace(
    train_step=compilation.told(training_step, options, run.train_step),
    eval_step=compilation.told('evaluation step', options, run.eval_step),
  )
