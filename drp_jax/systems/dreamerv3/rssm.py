"""DreamerV3's recurrent state-space model.

It differs from `models/rssm.py` by its recurrent core, by its norms, and by a
share of the uniform distribution in every categorical. The logits of its states
hold that share already.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.ops import distributions
from drp_jax.systems.dreamerv3 import block_gru, layers

_UNIMIX = 0.01  # share of the uniform distribution  [DreamerV3]


class RSSM(nn.Module):
  """Prior p(x_t | x_{t-1}, a_t) and posterior q(x_t | x_{t-1}, a_t, o_t).

  Attributes:
    deter_size: width of the recurrent state.
    hidden: width of the dense layers.
    groups: categoricals.
    classes: classes of each.
    blocks: of the recurrent core.
  """

  deter_size: int
  hidden: int
  groups: int
  classes: int
  blocks: int

  def setup(self):
    stoch = self.groups * self.classes
    self.gru = block_gru.BlockGRU(self.hidden, self.blocks)
    self.prior = layers.MLP(self.hidden, depth=2)
    self.prior_out = layers.Dense(stoch)
    self.post = layers.MLP(self.hidden, depth=1)
    self.post_out = layers.Dense(stoch)

  def initial(self, batch: int, dtype=jnp.float32) -> types.RSSMState:
    """Returns the state before any observation: zeros, samples included."""
    shape = (batch, self.groups, self.classes)
    return types.RSSMState(
      deter=jnp.zeros([batch, self.deter_size], dtype),
      stoch=jnp.zeros(shape, dtype),
      logits=jnp.zeros(shape),
    )

  def observe(
    self,
    embed: jax.Array,
    action: jax.Array,
    is_first: jax.Array,
    gumbel: jax.Array,
  ) -> tuple[types.RSSMState, types.RSSMState]:
    """Filters whole sequences, from the initial state.

    Args:
      embed: [B, T, E].
      action: [B, T, A].
      is_first: [B, T] bool; where set, the past and the action are forgotten.
      gumbel: [B, T, groups, classes] noise.

    Returns:
      Posterior and prior, leaves [B, T, ...]. The prior is not sampled: its
      `stoch` is the posterior's.
    """

    def step(rssm, state, inputs):
      state = rssm.obs_step(state, *inputs)
      return state, state

    scan = nn.scan(
      step,
      variable_broadcast='params',
      split_rngs={'params': False},
      in_axes=1,
      out_axes=1,
    )
    start = self.initial(embed.shape[0], embed.dtype)
    _, post = scan(self, start, (embed, action, is_first, gumbel))
    return post, post.replace(logits=self._prior_logits(post.deter))

  def obs_step(
    self,
    state: types.RSSMState,
    embed: jax.Array,
    action: jax.Array,
    is_first: jax.Array,
    gumbel: jax.Array,
  ) -> types.RSSMState:
    """Computes one step of `observe`: leaves [B, ...], posterior only."""
    keep = 1.0 - is_first[:, None].astype(embed.dtype)
    deter = self._recur(
      state.deter * keep,
      state.stoch * keep[..., None],
      action.astype(embed.dtype) * keep,
    )
    hidden = self.post(jnp.concatenate([deter, embed], -1))
    return _sampled(deter, self._logits(self.post_out(hidden)), gumbel)

  def img_step(
    self, state: types.RSSMState, action: jax.Array, gumbel: jax.Array
  ) -> types.RSSMState:
    """Computes one step of the prior: leaves [N, ...], action [N, A]."""
    action = action.astype(state.deter.dtype)
    deter = self._recur(state.deter, state.stoch, action)
    return _sampled(deter, self._prior_logits(deter), gumbel)

  def _recur(self, deter, stoch, action):
    return self.gru(deter, stoch.reshape(*stoch.shape[:-2], -1), action)

  def _prior_logits(self, deter):
    return self._logits(self.prior_out(self.prior(deter)))

  def _logits(self, x):
    x = x.reshape(*x.shape[:-1], self.groups, self.classes)
    return distributions.mix_uniform(x.astype(jnp.float32), _UNIMIX)


def _sampled(deter, logits, gumbel) -> types.RSSMState:
  """Returns a state with a sample of its logits, in deter's type."""
  stoch = distributions.categorical_sample(logits, gumbel)
  return types.RSSMState(deter, stoch.astype(deter.dtype), logits)
