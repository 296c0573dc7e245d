"""The training loop with its hooks, from start or resume to the result."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from googlenet import config as config_lib
from googlenet.data import auto
from googlenet.io.console import Console
from googlenet.io.metrics import NonFiniteError, Progress, Stopwatch
from googlenet.io.saver import Saver, WriteError
from googlenet.io.writer import Writer, divergence_recorded
from googlenet.model.initialization import count_parameters
from googlenet.runtime import memory, progress
from googlenet.runtime.parallel import replicated, steps_in_flight
from googlenet.runtime.preemption import PreemptionHandler
from googlenet.runtime.terminal import warn
from googlenet.train import diagnosis, messages, resume, same_run, setup
from googlenet.train.hooks import Evaluate, Hook, Log, Save, Session
from googlenet.train.profiling import Profile
from googlenet.train.state import TrainState
from googlenet.train.summaries import Show

Config = ml_collections.FrozenConfigDict


def train_and_evaluate(
  config: Config,
  workdir: str | os.PathLike[str],
  started: float | None = None,
  allow_config_change: bool = False,
) -> dict[str, Any]:
  """Trains and evaluates the network of a config; continues an existing run.

  Args:
    config: resolved.
    workdir: folder of the run. If it holds a run, that run is continued;
      otherwise it is created when the first metrics are written.
    started: `time.monotonic()` at the start of the program, to report the
      time up to the end of the first step; None: training is only a part of
      the program, which signals do not end.
    allow_config_change: whether a run may be continued with another config.

  Returns:
    The contents of result.json.

  Raises:
    UserError: bad input (nothing was written), or a loss that is not finite.
    Stopped: a signal asked the run to stop; it can be continued.
    WriteError: an output cannot be written; the run can be continued.
    OutOfMemoryError: a device runs out of memory.
  """
  handler = PreemptionHandler(owns_process=started is not None)
  started = time.monotonic() if started is None else started
  with contextlib.ExitStack() as stack:
    preemption = stack.enter_context(handler)
    config = auto.complete_run(config, workdir)
    found = resume.look(workdir, config, allow_config_change)
    if found.lock is not None:
      stack.callback(found.lock.release)
    if found.result is not None:
      if jax.process_index() == 0:
        print(messages.finished(found.result, workdir, config), flush=True)
      return found.result
    stack.enter_context(progress.shown_on(sys.stdout))
    stack.enter_context(_memory_errors_explained(workdir))
    run = setup.build(config, found.has_checkpoint)
    same_run.check_processes(run)
    session, start = _open(run, workdir, found, preemption, started, stack)
    stack.enter_context(divergence_recorded(workdir))
    log = Log(session)
    profile = Profile(session, workdir, log.settle)
    evaluate = Evaluate(session, log.flush)
    show, save = Show(session), Save(session, log.flush)
    # Order matters: a checkpoint includes the changes of the hooks before it.
    hooks: list[Hook] = [log, profile, evaluate, show, save]
    stack.callback(profile.close)

    step, state = start.step, start.state
    seed = replicated(np.uint32(config.seed))
    waits = not steps_in_flight()  # on a CPU
    if step == 0:
      show.inputs(0)
    try:
      # The run ended after an epoch was trained but before it was evaluated.
      if session.progress.is_epoch_pending:
        for hook in hooks:
          state = hook(step, state, None)
      batches = stack.enter_context(contextlib.closing(run.batches(step)))
      is_over = session.is_last(step)
      for step, batch in () if is_over else batches:
        with jax.profiler.StepTraceAnnotation('train', step_num=step):
          size = run.image_size(step)
          state, metrics = run.train_step(state, batch, seed, size)
          if waits:
            jax.block_until_ready(metrics)
        preemption.can_save()
        for hook in hooks:
          state = hook(step, state, metrics)
        if session.is_last(step):
          break
    except NonFiniteError as error:
      raise diagnosis.located(error, run, state) from error
    except memory.OutOfMemoryError:
      if session.progress.is_epoch_pending:  # evaluated when the run resumes
        save.save(step, state)
        session.saver.finish()
      raise
    session.saver.finish()
    return _finish(session, step, state, workdir)


def _open(
  run: setup.Run,
  workdir: str | os.PathLike[str],
  found: resume.Found,
  preemption: PreemptionHandler,
  started: float,
  stack: contextlib.ExitStack,
) -> tuple[Session, resume.Start]:
  """Returns the session and the start of training; `stack` closes files."""
  config = run.config
  writer = Writer(
    workdir,
    config_lib.to_json(config),
    run.train.dataset.class_names,
    config.logging.tensorboard,
  )
  saver = Saver(workdir, config.checkpoint.keep, warn)
  console = Console(sys.stdout, run.durations.num_steps)
  start = resume.Start(0, run.state, Progress())
  if found.is_run:
    allowed = found.allow_config_change
    start = resume.restore(workdir, run, allowed, warn)
  for line in messages.describe(run, workdir, not found.is_run):
    console.line(line)
  stack.enter_context(_write_errors_explained(workdir))
  stack.callback(writer.close)
  stack.callback(saver.poll, wait=True)
  stack.callback(console.close)
  if found.is_run:
    console.line(messages.resumed(start))
  if found.lock is not None:
    writer.resume(found.lock, start.step, start.log)
  session = Session(
    run,
    start.progress,
    writer,
    saver,
    console,
    preemption,
    Stopwatch(start.step),
    start.step + 1,
    started,
  )
  return session, start


def _finish(
  session: Session,
  step: int,
  state: TrainState,
  workdir: str | os.PathLike[str],
) -> dict[str, Any]:
  """Writes result.json, shows it and returns it."""
  run = session.run
  result = {
    **session.progress.result(
      step,
      run.epoch(step),
      run.config.train.batch_size,
      run.config.checkpoint.best_metric,
      session.started,
    ),
    'parameters': count_parameters(state.params),
    'kernels': run.network.kernels.name,
    **messages.ended_early(run, step, session.progress),
  }
  session.writer.write_result(result)
  for line in messages.describe_result(result, workdir):
    session.console.line(line)
  return result


@contextlib.contextmanager
def _memory_errors_explained(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Adds to out-of-memory errors how the run can be continued."""
  try:
    with memory.explained('training'):
      yield
  except memory.OutOfMemoryError as error:
    if not os.path.exists(os.path.join(workdir, 'config.json')):
      raise
    what = 'continued training' if error.what == 'training' else error.what
    raise memory.OutOfMemoryError(
      error.facts,
      what,
      f'; to continue the run in {workdir}, add --allow_config_change',
    ) from error


@contextlib.contextmanager
def _write_errors_explained(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Turns an OSError into a WriteError that says how to continue the run."""
  try:
    yield
  except OSError as error:
    raise WriteError(
      f'{" ".join(str(error).split())}: training stopped; the same command '
      f'with --workdir={workdir} continues from the last checkpoint'
    ) from error
