"""Recurrent state-space model (Eqs. 1, 3; C5, C6).

One class serves as the latent dynamics model (z), driven by aggregated actions
(by none in IPV), and as the action-specific dynamics model (s), driven by the
robot's actions. States are of the type of what is observed, logits float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import late_gradients, layers
from drp_jax.ops import distributions


class RSSM(nn.Module):
  """Prior p(x_t | x_{t-1}, a_t) and posterior q(x_t | x_{t-1}, a_t, o_t).

  `action[t]` is stored with the step it led to, the paper's a_{t-1}.

  Attributes:
    deter_size: width of the recurrent state.
    hidden: width of the dense layers.
    groups: categoricals.
    classes: classes of each.
    action_size: width of the slot for actions; narrower ones are padded with
      zeros, as in IPV, whose slot of 50 fits every robot.
    embed_size: width of `embed`.
    normal: latents are `groups` normals, not categoricals, and `classes` is 1;
      what is called gumbel below is then standard normal noise  [DisWM].
  """

  deter_size: int
  hidden: int
  groups: int
  classes: int
  action_size: int
  embed_size: int
  normal: bool = False

  def setup(self):
    stoch = self.groups * self.classes
    # Dense layers with two inputs are two layers with one: the parts that do
    # not depend on the state leave the scan over time.
    fan = stoch + self.action_size
    init = layers.shared_glorot(fan, self.hidden)
    self.stoch_in = layers.Dense(self.hidden, use_bias=False, kernel_init=init)
    self.action_in = layers.Dense(self.hidden, kernel_init=init)
    self.gru = layers.GRU(1e-5 if self.normal else 1e-3)  # [DisWM, IPV]
    self.prior_hidden = layers.Dense(self.hidden)
    self.prior_out = layers.Dense(self.groups * self._params)
    fan = self.deter_size + self.embed_size
    init = layers.shared_glorot(fan, self.hidden)
    self.post_deter = layers.Dense(
      self.hidden, use_bias=False, kernel_init=init
    )
    self.post_embed = layers.Dense(self.hidden, kernel_init=init)
    self.post_out = layers.Dense(self.groups * self._params)

  @property
  def feat_size(self) -> int:
    """Width of a state's features."""
    return self.groups * self.classes + self.deter_size

  @property
  def _params(self) -> int:
    """Numbers that describe the distribution of each group."""
    return 2 if self.normal else self.classes

  def initial(self, batch: int, dtype=jnp.float32) -> types.RSSMState:
    """Returns the state before any observation: zeros, samples included."""
    shape = (batch, self.groups, self.classes)
    return types.RSSMState(
      deter=jnp.zeros([batch, self.deter_size], dtype),
      stoch=jnp.zeros(shape, dtype),
      logits=jnp.zeros([batch, self.groups, self._params]),
    )

  def observe(
    self,
    embed: jax.Array,
    action: jax.Array,
    is_first: jax.Array,
    gumbel: jax.Array | None,
  ) -> tuple[types.RSSMState, types.RSSMState]:
    """Filters whole sequences, from the initial state.

    Args:
      embed: [B, T, E].
      action: [B, T, A], A <= `action_size`.
      is_first: [B, T] bool; where set, the past and the action are forgotten.
      gumbel: [B, T, groups, classes] noise, or None for modes.

    Returns:
      Posterior and prior, leaves [B, T, ...]. The prior is not sampled: its
      `stoch` is the posterior's.
    """
    keep = 1.0 - is_first[..., None].astype(embed.dtype)
    embed_in = self.post_embed(embed)
    action_in = self._action_in(action.astype(embed.dtype) * keep)
    start = self.initial(embed.shape[0], embed.dtype)
    carry = start.deter, start.stoch
    xs = embed_in, action_in, keep, gumbel
    if self.is_initializing():
      self._observe_step(carry, jax.tree.map(lambda x: x[:, 0], xs))
    model, variables = self.unbind()

    def step(params, carry, x):
      return model.apply(
        {'params': params}, carry, x, method=RSSM._observe_step
      )

    _, post = late_gradients.scan(
      step, variables['params'], carry, jax.tree.map(_time_first, xs)
    )
    post = jax.tree.map(_time_first, post)
    prior = post.replace(logits=self._prior_logits(post.deter))
    return post, prior

  def _observe_step(self, carry, x):
    """Computes one step of the scan of `observe`."""
    deter, stoch = carry
    embed_in, action_in, keep, gumbel = x
    deter = self._recur(deter * keep, stoch * keep[..., None], action_in)
    state = self._sampled(deter, self._post_logits(deter, embed_in), gumbel)
    return (state.deter, state.stoch), state

  def obs_step(
    self,
    state: types.RSSMState,
    embed: jax.Array,
    action: jax.Array,
    is_first: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Computes one step of `observe`: leaves [B, ...], posterior only."""
    keep = 1.0 - is_first[..., None].astype(embed.dtype)
    deter = self._recur(
      state.deter * keep,
      state.stoch * keep[..., None],
      self._action_in(action.astype(embed.dtype) * keep),
    )
    logits = self._post_logits(deter, self.post_embed(embed))
    return self._sampled(deter, logits, gumbel)

  def img_step(
    self,
    state: types.RSSMState,
    action: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Computes one step of the prior: leaves [..., ...], action [..., A]."""
    action_in = self._action_in(action.astype(state.deter.dtype))
    deter = self._recur(state.deter, state.stoch, action_in)
    return self._sampled(deter, self._prior_logits(deter), gumbel)

  def imagine(
    self,
    state: types.RSSMState,
    action: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Rolls the prior along given actions (open-loop prediction).

    Args:
      state: leaves [B, ...], where to start.
      action: [B, T, A].
      gumbel: [B, T, groups, classes], or None for modes.

    Returns:
      Prior states, leaves [B, T, ...].
    """
    zeros = jnp.zeros(action.shape[:2])
    noise = zeros if gumbel is None else gumbel

    def step(rssm, state, inputs):
      action, noise = inputs
      state = rssm.img_step(state, action, None if gumbel is None else noise)
      return state, state

    scan = nn.scan(
      step,
      variable_broadcast='params',
      split_rngs={'params': False},
      in_axes=1,
      out_axes=1,
    )
    return scan(self, state, (action, noise))[1]

  def _action_in(self, action):
    missing = self.action_size - action.shape[-1]
    if missing < 0:
      raise ValueError(
        f'actions of {action.shape[-1]} numbers do not fit a slot of'
        f' {self.action_size}.'
      )
    if missing:
      pad = [(0, 0)] * (action.ndim - 1) + [(0, missing)]
      action = jnp.pad(action, pad)
    return self.action_in(action)

  def _recur(self, deter, stoch, action_in):
    flat = stoch.reshape(*stoch.shape[:-2], -1)
    return self.gru(deter, nn.elu(self.stoch_in(flat) + action_in))

  def _prior_logits(self, deter):
    return self._logits(self.prior_out(nn.elu(self.prior_hidden(deter))))

  def _post_logits(self, deter, embed_in):
    return self._logits(
      self.post_out(nn.elu(self.post_deter(deter) + embed_in))
    )

  def _logits(self, x):
    x = x.reshape(*x.shape[:-1], self.groups, self._params)
    x = x.astype(jnp.float32)
    if not self.normal:
      return x
    mean, raw = x[..., 0], x[..., 1]
    return jnp.stack([mean, 2.0 * jax.nn.sigmoid(raw / 2.0) + 0.1], -1)

  def _sampled(self, deter, logits, gumbel) -> types.RSSMState:
    """Returns a state with a sample (or the mode), in deter's type."""
    if self.normal:
      stoch, std = logits[..., :1], logits[..., 1:]
      stoch = stoch if gumbel is None else stoch + std * gumbel
    else:
      stoch = distributions.categorical_sample(logits, gumbel)
    return types.RSSMState(deter, stoch.astype(deter.dtype), logits)


def _time_first(x):
  """Swaps the first two axes: [B, T, ...] to [T, B, ...], and back."""
  return jnp.swapaxes(x, 0, 1)
