"""Slow: that training learns, not only that it runs."""

import jax
import jax.numpy as jnp
import optax
import pytest

from configs import pretrain as pretrain_config
from drp_jax import types
from drp_jax.models import heads
from drp_jax.runs import logger
from drp_jax.systems import imagination
from drp_jax.train import pretrain


@pytest.mark.slow
def test_masked_motion_is_predicted_better_than_by_any_constant(
  real_shards, tmp_path
):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = str(real_shards)
  config.optim.lr = 3e-3
  config.pretrain.num_steps = 300
  config.pretrain.log_every = 300
  config.pretrain.eval_every = 300
  config.pretrain.checkpoint_every = 300
  pretrain.pretrain(config, tmp_path)
  line = [x for x in logger.read_metrics(tmp_path) if 'held_out/mae' in x][-1]
  constant = min(
    line['held_out/mae_zero_flow'], line['held_out/mae_mean_patch']
  )
  assert line['held_out/mae'] < 0.7 * constant


@pytest.mark.slow
def test_actor_and_critic_learn_in_a_known_world():
  """A point that actions push is to stay at 0.6; all of it is known.

  The first 1000 updates or so pass while values grow to 1 / (1 - discount), and
  the actor only follows their slope: it takes this many even here.
  """
  actor, critic = heads.PolicyHead(1, 64, 2), heads.ScalarHead(64, 2)
  settings = imagination.Settings(
    horizon=15, discount=0.99, lam=0.95, entropy_scale=1e-3
  )

  def state(place):
    none = jnp.zeros((len(place), 1, 1))
    return types.RSSMState(deter=place, stoch=none, logits=none)

  fns = imagination.Functions(
    img_step=lambda s, action, _: state(0.8 * s.deter + 0.2 * action),
    reward=lambda feat: 1 - jnp.abs(feat[..., 1] - 0.6),
    policy=lambda params, feat: actor.apply({'params': params}, feat),
    value=lambda params, feat: critic.apply({'params': params}, feat),
  )
  feat = jnp.zeros((1, 2))
  trained = {
    'actor': actor.init(jax.random.key(0), feat)['params'],
    'critic': critic.init(jax.random.key(1), feat)['params'],
  }
  tx = optax.multi_transform(
    {'actor': optax.adam(1e-4), 'critic': optax.adam(5e-4)},
    {'actor': 'actor', 'critic': 'critic'},
  )

  @jax.jit
  def step(trained, slow, opt_state, key):
    start_key, action_key = jax.random.split(key)
    place = jax.random.uniform(start_key, (96, 1), minval=-1, maxval=1)
    uniform = jax.random.uniform(action_key, (15, 96, 1))
    gumbel = jnp.zeros((15, 96, 1, 1))
    terminal = jnp.zeros(96, bool)
    grads, metrics = jax.grad(imagination.loss, has_aux=True)(
      trained, slow, fns, state(place), terminal, uniform, gumbel, settings
    )
    updates, opt_state = tx.update(grads, opt_state)
    return optax.apply_updates(trained, updates), opt_state, metrics

  opt_state, slow = tx.init(trained), trained['critic']
  for number in range(3000):
    if number % 25 == 0:
      slow = trained['critic']
    trained, opt_state, metrics = step(
      trained, slow, opt_state, jax.random.key(number)
    )
  assert metrics['behavior/reward'] > 0.85
  places = jnp.array([[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]])
  mean, _ = fns.policy(trained['actor'], places)
  assert mean[0] > 0.9 and mean[1] > 0.9 and mean[2] < -0.3
