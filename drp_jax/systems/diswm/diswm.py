"""DisWM: a beta-VAE world model that a frozen encoder of videos guides.

What its calls mean is said once, in `contract.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import losses, types
from drp_jax.models import heads, rssm
from drp_jax.ops import distributions, noise
from drp_jax.runs import ranges
from drp_jax.systems import (
  acting,
  contract,
  definition,
  imagination,
  parts,
  world_model,
)
from drp_jax.systems.diswm import networks, vae

# Parameter set -> optimizer group of fine-tuning (systems/optim.py).
_GROUPS = {
  'image_encoder': 'model',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
  'teacher': 'frozen',  # [DisWM]
}
_RANGES = {
  'diswm.depth': (1, 1024),
  'diswm.latent_size': ranges.WIDTH,
  'diswm.stoch_size': ranges.WIDTH,
  'diswm.width': ranges.WIDTH,
  'diswm.beta': ranges.WEIGHT,
  'diswm.reward_scale': ranges.WEIGHT,
  'diswm.free_nats': ranges.WEIGHT,
  'diswm.distill_scale': ranges.WEIGHT,
  'diswm.distill_steps': ranges.COUNT,
}

_FLOOR = 0.1  # share of its weight that distillation keeps  [DisWM]
# The weight was computed once, after 2500 of 50,000 steps  [DisWM, T2].
_RELEASED = 0.95


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of its losses; see configs/base.py `diswm`.

  Attributes:
    beta: weight of the codes' KL.
    reward_scale: weight of the reward's loss.
    free_nats: below which the states' KL is not pushed, in both stages.
    distill_scale: first weight of distillation; 0 without a teacher.
    distill_updates: in which the intended weight would fall to zero.
    schedule: 'intended', 'cross_domain' or 'released', see `distill_weight`.
  """

  beta: float
  reward_scale: float
  free_nats: float
  distill_scale: float
  distill_updates: float
  schedule: str


def distill_weight(settings: Settings, updates: jax.Array) -> jax.Array:
  """Weight of distillation, eta, after some updates.

  The intended one falls in a line to a tenth. That of `cross_domain` is zero
  until the intended one would be, and only then falls so. The released code
  has a constant, since it never sees its counter move (T2).

  Args:
    settings: of which those of distillation are read.
    updates: [] so far.

  Returns:
    [] float32.
  """
  done = updates / settings.distill_updates
  if settings.schedule == 'intended':
    share = jnp.maximum(1.0 - done, _FLOOR)
  elif settings.schedule == 'cross_domain':
    share = jnp.where(done < 1.0, 0.0, jnp.maximum(2.0 - done, _FLOOR))
  else:
    share = jnp.full_like(done, _RELEASED)
  return settings.distill_scale * share


def distill_loss(teacher: jax.Array, student: jax.Array) -> jax.Array:
  """KL(softmax(teacher) || softmax(student)), of codes [B, T, Z] -> [].

  Summed over time, unlike other losses, and averaged over the batch  [DisWM].
  """
  kl = distributions.categorical_kl(
    jax.lax.stop_gradient(teacher).astype(jnp.float32)[..., None, :],
    student.astype(jnp.float32)[..., None, :],
  )
  return kl.sum(1).mean()


@dataclasses.dataclass(frozen=True)
class DisWM(world_model.LearnsInImagination, acting.ActsFromOneState):
  """One dynamics model from scratch, and a frozen encoder of videos.

  The collection `progress` counts updates, for the weight of distillation.

  Attributes:
    model: the networks.
    weights: of the losses that others have too.
    settings: of its own.
    behavior: numbers of policy learning.
    axis_name: device axis of the training step, or None.
  """

  pretrained: ClassVar[tuple[str, ...]] = ('teacher',)
  follows_motion: ClassVar[bool] = False
  bonus_size: ClassVar[int] = 0
  state_noise = staticmethod(jax.random.normal)

  model: networks.DisWMModel
  weights: world_model.LossWeights
  settings: Settings
  behavior: imagination.Settings
  axis_name: str | None = None

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """See `System.init`."""
    keys = noise.example_keys(key, 0, batch.image.shape[0])
    model = self.model
    if not isinstance(batch, types.ReplayBatch):
      return model.init(key, batch, keys, method=model.pretrain)
    variables = model.init(key, batch, keys, method=model.init_finetune)
    return {**variables, 'progress': {'updates': jnp.zeros((), jnp.int32)}}

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, contract.Metrics]]:
    """Image, KL of z and of the images' codes."""
    out, codes = self.model.apply(
      {'params': params}, batch, keys, method=self.model.pretrain
    )
    w, beta = self.weights, self.settings.beta
    image = losses.image_loss(out.z_decoded, out.image)
    kl, kl_value = self._kl(out.z, out.z_prior)
    code = _code_kl(codes)
    loss = image + w.kl_z * kl + beta * code
    return loss, (
      collections,
      {
        'loss/image_z': image,
        'loss/kl_z': kl,
        'loss/code': code,
        'loss/total': loss,
        'kl/z': kl_value,
      },
    )

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: contract.BonusFn,
  ) -> tuple[jax.Array, contract.WorldModelOutput]:
    """Image, reward, KL of s and of the codes, and distillation."""
    del bonus_fn  # there is none
    out, codes = self.model.apply(
      {'params': params}, batch, keys, method=self.model.finetune
    )
    updates = collections['progress']['updates']
    w, c = self.weights, self.settings
    image = losses.image_loss(out.s_decoded, out.image)
    reward = losses.reward_loss(out.reward, batch.reward)
    kl, kl_value = self._kl(out.s, out.s_prior)
    code = _code_kl(codes)
    distill = distill_loss(codes.teacher, codes.sample)
    weight = distill_weight(c, updates)
    loss = w.image * image + c.reward_scale * reward + w.kl_s * kl
    loss += c.beta * code + weight * distill
    more_loss, more = world_model.continuation_loss(
      out, batch, w, self.behavior.discount
    )
    loss += more_loss
    metrics = more | {
      'loss/image': image,
      'loss/reward': reward,
      'loss/kl_s': kl,
      'loss/code': code,
      'loss/distill': distill,
      'loss/total': loss,
      'kl/s': kl_value,
      'distill_weight': weight,
      'reward/batch': batch.reward.mean(),
    }
    collections = {**collections, 'progress': {'updates': updates + 1}}
    return loss, contract.WorldModelOutput(collections, out.s, None, metrics)

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
    driver: types.VideoBatch | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """See `Pretrains.open_loop`; of pre-training's variables."""
    del keys, driver  # there are no contexts
    return self.model.apply(
      variables, batch, context_steps, method=self.model.open_loop
    )

  def _kl(self, post, prior):
    w = self.weights
    return losses.kl_loss(
      post.logits,
      prior.logits,
      w.kl_balance,
      self.settings.free_nats,
      self.axis_name,
      kl=_normals_kl,
    )


def _normals_kl(p: jax.Array, q: jax.Array) -> jax.Array:
  """KL of states' normals [..., S, (mean, std)] -> [...]."""
  return distributions.normal_kl(p[..., 0], p[..., 1], q[..., 0], q[..., 1])


def _code_kl(codes: networks.Codes) -> jax.Array:
  """KL of the images' codes to a standard normal, mean over frames."""
  return distributions.normal_kl(codes.mean, codes.std, 0.0, 1.0).mean()


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  system = DisWM(
    model=_model(config, action_size),
    settings=_settings(config),
    **definition.in_turn_settings(config, axis_name),
  )
  # States are normal, and their entropy is not logged.
  return definition.in_turn(
    config, system, action_size, _GROUPS, max_entropy=0.0
  )


def _model(config, action_size) -> networks.DisWMModel:
  c, width = config.diswm, config.heads.width
  size = dict(depth=c.depth, latent_size=c.latent_size)
  return networks.DisWMModel(
    teacher=vae.VAEEncoder(**size),
    image_encoder=vae.VAEEncoder(**size),
    image_decoder=vae.VAEDecoder(**size),
    action_dynamics=rssm.RSSM(
      deter_size=c.width,
      hidden=c.width,
      groups=c.stoch_size,
      classes=1,
      action_size=action_size,
      embed_size=c.latent_size,
      normal=True,
    ),
    reward=heads.ScalarHead(width, depth=2),
    continuation=heads.ScalarHead(width, depth=2)
    if config.behavior.continuation
    else None,
    actor=heads.PolicyHead(action_size, width, depth=4),
    critic=heads.ScalarHead(width, depth=3),
    dtype=parts.dtype(config),
  )


def _settings(config) -> Settings:
  c = config.diswm
  has_teacher = config.init_from and 'teacher' not in config.init_without
  return Settings(
    beta=c.beta,
    reward_scale=c.reward_scale,
    free_nats=c.free_nats,
    distill_scale=c.distill_scale if has_teacher else 0.0,
    distill_updates=c.distill_steps / config.finetune.train_every,
    schedule=c.schedule,
  )


DEFINITION = definition.Definition(
  _build,
  _RANGES,
  {'diswm.schedule': ('intended', 'cross_domain', 'released')},
)
