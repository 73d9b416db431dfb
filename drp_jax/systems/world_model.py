"""What systems of the V2 family share: learning in imagination, losses.

Each term takes what a forward pass left in a dict (`models/stacked_model.py`,
`systems/dreamerv2.py`).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from drp_jax import losses, types
from drp_jax.models import outputs
from drp_jax.ops import distributions, noise
from drp_jax.systems import contract, imagination


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the terms of Eqs. 5-9, and PreLAR's; see configs/base.py `loss`.

  A system reads those of the terms it has.
  """

  mae: float
  dyn: float
  image: float
  kl_z: float
  kl_s: float
  reward: float
  aux_reward: float
  latent_action: float
  consistency: float
  continuation: float
  kl_balance: float
  free_nats: float


class LearnsInImagination:
  """The calls by which actor and critic learn, the same in all these systems.

  Of a system whose fields are `model`, all networks, and `behavior`.

  Attributes:
    state_noise: sampler of the noise that states are drawn with.
  """

  state_noise = staticmethod(jax.random.gumbel)
  model: Any
  behavior: Any

  def start_states(self, output: contract.WorldModelOutput) -> types.RSSMState:
    """See `Imagines.start_states`: every posterior s."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), output.s)
    return jax.lax.stop_gradient(flat)

  def behavior_loss(
    self,
    trained: dict[str, Any],
    slow_critic: Any,
    params: Any,
    collections: Any,
    start: types.RSSMState,
    is_terminal: jax.Array,
    keys: jax.Array,
  ) -> tuple[jax.Array, contract.Metrics]:
    """L_actor + L_critic (Eqs. 11, 12) in the model's imagination (D10)."""
    return imagination.loss_in_model(
      self.model,
      self.behavior,
      trained,
      slow_critic,
      {'params': params, **collections},
      start,
      is_terminal,
      keys,
      self.state_noise,
    )


def pretrain_keys(keys: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
  """Keys [B] of the mask of atomic actions, and three of the latent model.

  Systems without motion leave the first unused, so that IPV draws what DRP
  draws.
  """
  hide, *latent = noise.split(keys, 4)
  return hide, latent


def finetune_keys(
  keys: jax.Array,
) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
  """`pretrain_keys`, and two of the action-specific model."""
  keys, *action = noise.split(keys, 3)
  return *pretrain_keys(keys), action


def latent_loss(
  out: outputs.Latent, weights: LossWeights, axis_name: str | None
) -> tuple[jax.Array, contract.Metrics]:
  """L_dyn: image from z and KL of z (Eqs. 6, 8).

  Args:
    out: with `z_decoded`.
    weights: of which `kl_z` is read, and how KLs are balanced and clamped.
    axis_name: device axis, or None.

  Returns:
    The loss [] and metrics.
  """
  assert out.z_decoded is not None  # it was asked for
  image = losses.image_loss(out.z_decoded, out.image, out.image_weight)
  kl, kl_value = _kl(out.z, out.z_prior, weights, axis_name)
  return image + weights.kl_z * kl, {
    'loss/image_z': image,
    'loss/kl_z': kl,
    'kl/z': kl_value,
    'entropy/z_post': _entropy(out.z),
    'entropy/z_prior': _entropy(out.z_prior),
  }


def action_loss(
  out: outputs.Action,
  batch: types.ReplayBatch,
  bonus: jax.Array,
  weights: LossWeights,
  discount: float,
  axis_name: str | None,
) -> tuple[jax.Array, contract.Metrics]:
  """L_action: image and rewards from s, and KL of s (Eq. 9).

  The behavioral head, read in imagination, learns reward and bonus; the
  representative one, where there is one, the plain reward of all steps. A head
  of continuation learns the discount of all steps.

  Args:
    out: of a model's `finetune`.
    batch: leaves [B, T, ...].
    bonus: [B, n], of the first n steps, weighted.
    weights: of the terms.
    discount: gamma.
    axis_name: device axis, or None.

  Returns:
    The loss [] and metrics.
  """
  n, w, reward = bonus.shape[1], weights, batch.reward
  image = losses.image_loss(out.s_decoded, out.image, out.image_weight)
  kl, kl_value = _kl(out.s, out.s_prior, weights, axis_name)
  behavioral = losses.reward_loss(out.reward[:, :n], reward[:, :n] + bonus)
  loss = w.image * image + w.kl_s * kl + w.reward * behavioral
  metrics = {
    'loss/image': image,
    'loss/kl_s': kl,
    'loss/reward': behavioral,
    'kl/s': kl_value,
    'entropy/s_post': _entropy(out.s),
    'entropy/s_prior': _entropy(out.s_prior),
    'bonus/mean': bonus.mean(),
    'reward/batch': reward.mean(),
  }
  if out.aux_reward is not None:
    representative = losses.reward_loss(out.aux_reward, reward)
    loss += w.aux_reward * representative
    metrics['loss/aux_reward'] = representative
  more_loss, more = continuation_loss(out, batch, weights, discount)
  return loss + more_loss, metrics | more


def continuation_loss(
  out: outputs.Action,
  batch: types.ReplayBatch,
  weights: LossWeights,
  discount: float,
) -> tuple[jax.Array | float, contract.Metrics]:
  """The weighted loss of the head of continuation, if there is one (N41)."""
  if out.continuation is None:
    return 0.0, {}
  loss = losses.continuation_loss(out.continuation, batch.is_terminal, discount)
  return weights.continuation * loss, {'loss/continuation': loss}


def bonus_features(state: types.RSSMState) -> jax.Array:
  """What the intrinsic bonus looks at: features, stopped, float32."""
  return jax.lax.stop_gradient(state.feat).astype(jnp.float32)


def _kl(post, prior, weights, axis_name):
  return losses.kl_loss(
    post.logits, prior.logits, weights.kl_balance, weights.free_nats, axis_name
  )


def _entropy(state: types.RSSMState) -> jax.Array:
  return distributions.categorical_entropy(state.logits).mean()
