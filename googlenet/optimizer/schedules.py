"""Learning-rate schedules beside `constant` and `cosine`.

Each is a function of the `optimizer` section, the steps of an epoch and the
steps after the warm-up; it returns step -> rate, where step 0 is the first one
after the warm-up. Epochs count from the start of the run, so that a warm-up
does not move them.
"""

import jax.numpy as jnp
import ml_collections
import optax

Config = ml_collections.ConfigDict

_LAST_STEP = 2**31 - 1  # steps are int32


def _step(config: Config, steps_per_epoch: int, steps: int):
  del steps
  falls = jnp.array(
    [min(round(e * steps_per_epoch), _LAST_STEP) for e in config.step_epochs]
  )

  def schedule(step):
    passed = jnp.sum(step + config.warmup_steps >= falls)
    return config.learning_rate * config.step_factor**passed

  return schedule


def _poly(config: Config, steps_per_epoch: int, steps: int):
  del steps_per_epoch
  return optax.polynomial_schedule(
    config.learning_rate, 0.0, config.poly_power, max(steps, 1)
  )


def _exponential(
  config: Config, steps_per_epoch: int, steps: int, is_staircase: bool = False
):
  del steps
  decay = optax.exponential_decay(
    config.learning_rate,
    min(max(round(config.decay_epochs * steps_per_epoch), 1), _LAST_STEP),
    config.decay_rate,
    staircase=is_staircase,
  )
  return lambda step: decay(step + config.warmup_steps)


def _staircase(config: Config, steps_per_epoch: int, steps: int):
  """Szegedy et al., 2014, section 6: the rate falls by 4 % every 8 epochs.

  Szegedy et al., 2015, arXiv 1512.00567, section 8: by 6 % every 2 epochs.
  """
  return _exponential(config, steps_per_epoch, steps, is_staircase=True)


def _one_cycle(config: Config, steps_per_epoch: int, steps: int):
  """Smith and Topin, 2017, arXiv 1708.07120, with the cosines of PyTorch."""
  del steps_per_epoch
  return optax.cosine_onecycle_schedule(max(steps, 1), config.learning_rate)


def _wsd(config: Config, steps_per_epoch: int, steps: int):
  """Warm-up, stable, decay: Hu et al., 2024, arXiv 2404.06395, section 4.

  The decay is linear, as in Hägele et al., 2024, arXiv 2405.18392.
  """
  del steps_per_epoch
  total = steps + config.warmup_steps
  fall = max(min(round(config.decay_fraction * total), steps), 1)
  return optax.linear_schedule(
    config.learning_rate, 0.0, fall, transition_begin=max(steps - fall, 0)
  )


# fields.py lists the names too, in this order, after `constant` and `cosine`.
MORE_SCHEDULES = {
  'step': _step,
  'poly': _poly,
  'exponential': _exponential,
  'staircase': _staircase,
  'one_cycle': _one_cycle,
  'wsd': _wsd,
}
