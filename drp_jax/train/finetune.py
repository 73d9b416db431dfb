"""Fine-tuning on a robot's own task (Algorithm 2)."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from drp_jax import types
from drp_jax.agents import drp
from drp_jax.data import replay as replay_lib
from drp_jax.data import schema
from drp_jax.ops import noise
from drp_jax.train import (
  build,
  checkpoint,
  evaluate,
  intrinsic,
  logger,
  parallel,
  rollout,
  workdir,
)
from drp_jax.train import state as state_lib

_LEARNER = ('actor', 'critic')
EPISODE_FILE = 'eval_episode.npy'  # frames of the newest evaluation episode


def init_state(
  config: ml_collections.ConfigDict, system: drp.DRP, action_size: int
) -> state_lib.FinetuneState:
  """Random parameters, the pre-trained ones among them loaded (Alg. 2, 1-3).

  Args:
    config: configs/base.py; `init_from` names what to load.
    system: from `build.system`.
    action_size: A.

  Raises:
    ValueError: if what is to be loaded does not fit.
  """
  init_key, intrinsic_key = jax.random.split(jax.random.key(config.seed))
  batch = build.example_replay_batch(config, action_size)
  collections = jax.jit(system.init)(init_key, batch)
  params = collections.pop('params')
  flow_scale = jnp.float32(config.finetune.flow_scale)
  collections['constants'] = {'flow_scale': flow_scale}
  if config.init_from:
    part = {
      'params': {name: params[name] for name in drp.PRETRAINED},
      'collections': collections,
    }
    loaded = checkpoint.load_part(config.init_from, part)
    params = {**params, **loaded['params']}
    collections = loaded['collections']
  feat_size = config.rssm.deter_size + config.rssm.groups * config.rssm.classes
  model, learner = _split(params)
  return state_lib.FinetuneState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    collections=collections,
    model_opt=build.model_optimizer(config).init(model),
    behavior_opt=build.behavior_optimizer(config).init(learner),
    # A copy, since the step donates its input buffers one by one.
    slow_critic=jax.tree.map(jnp.copy, params['critic']),
    intrinsic=intrinsic.init(
      intrinsic_key, feat_size, build.intrinsic_settings(config)
    ),
  )


def finetune_step(
  state: state_lib.FinetuneState,
  batch: types.ReplayBatch,
  key: jax.Array,
  *,
  system: drp.DRP,
  model_tx: optax.GradientTransformation,
  behavior_tx: optax.GradientTransformation,
  bonus: intrinsic.Settings,
  slow_critic_every: int,
  axis_name: str | None = None,
) -> tuple[state_lib.FinetuneState, dict[str, jax.Array]]:
  """One update of everything (Algorithm 2, lines 10-23) on one device's share.

  The world model moves first; policy learning imagines with the new one, from
  the posterior states that its loss left.

  Args:
    state: equal on all devices.
    batch: leaves [b, T, ...].
    key: the run's typed key [], the same at every call.
    system: what to train.
    model_tx: optimizer of the world model's groups.
    behavior_tx: optimizer of actor and critic.
    bonus: numbers of the intrinsic bonus.
    slow_critic_every: updates between copies of the critic.
    axis_name: device axis, or None on a single device.

  Returns:
    The next state and metrics, averaged over devices.
  """
  b = batch.image.shape[0]
  first = parallel.device_examples(b, axis_name)
  keys = noise.example_keys(jax.random.fold_in(key, state.step), first, b)
  model_keys, behavior_keys = noise.split(keys, 2)
  model, learner = _split(state.params)
  bonus_fn = functools.partial(
    intrinsic.bonus, state.intrinsic, settings=bonus, axis_name=axis_name
  )

  grads, out = jax.grad(system.world_model_loss, has_aux=True)(
    model, state.collections, batch, model_keys, bonus_fn
  )
  grads, metrics = parallel.mean((grads, out.metrics), axis_name)
  updates, model_opt = model_tx.update(grads, state.model_opt, model)
  model = optax.apply_updates(model, updates)

  refresh = state.step % slow_critic_every == 0
  slow_critic = jax.tree.map(
    lambda new, old: jnp.where(refresh, new, old),
    learner['critic'],
    state.slow_critic,
  )
  learner_grads, more = jax.grad(system.behavior_loss, has_aux=True)(
    learner,
    slow_critic,
    model,
    out.collections,
    system.start_states(out),
    behavior_keys,
  )
  learner_grads, more = parallel.mean((learner_grads, more), axis_name)
  updates, behavior_opt = behavior_tx.update(
    learner_grads, state.behavior_opt, learner
  )
  learner = optax.apply_updates(learner, updates)
  metrics |= more | {
    f'grad_norm/{name}': optax.global_norm(tree)
    for name, tree in {**grads, **learner_grads}.items()
  }
  return state.replace(
    step=state.step + 1,
    params={**model, **learner},
    collections=out.collections,
    model_opt=model_opt,
    behavior_opt=behavior_opt,
    slow_critic=slow_critic,
    intrinsic=out.bonus_state,
  ), metrics


def finetune(
  config: ml_collections.ConfigDict,
  directory: str | pathlib.Path,
  make_env: Callable[[], gymnasium.Env],
  make_extractor: Callable[[int], rollout.Extractor],
) -> state_lib.FinetuneState:
  """Runs Algorithm 2 to its end, going on from the newest checkpoint.

  Checkpoints are taken between episodes; every episode is a function of its
  number, so a run that was killed repeats what it lost, to the same numbers.

  Args:
    config: configs/base.py.
    directory: the workdir: config, checkpoints, replay, metrics, events.
    make_env: opens an environment; called for training and for evaluation.
    make_extractor: seed -> streaming extractor of `dae.num_keypoints` points.

  Returns:
    The final state.

  Raises:
    ValueError: for settings that do not fit, naming the key.
  """
  return _Run(config, pathlib.Path(directory), make_env, make_extractor).train()


class _Run:
  """One fine-tuning: what its stages share."""

  def __init__(self, config, directory, make_env, make_extractor):
    c = self.config = config
    self.directory = directory
    self.env, self.eval_env = make_env(), make_env()
    self.extractor = make_extractor(c.seed)
    self.eval_extractor = make_extractor(c.seed)
    action_size = self.env.action_space.shape[0]
    self.system = build.system(c, action_size, parallel.AXIS)
    update_key, act_key, eval_key = jax.random.split(
      jax.random.key(c.seed + 1), 3
    )
    self.update_key = update_key
    actor = functools.partial(
      rollout.PolicyActor, self.system, c.dae.num_keypoints
    )
    self.actor = actor(act_key, True)
    self.eval_actor = actor(eval_key, False)
    self.state = init_state(c, self.system, action_size)
    self.saved = checkpoint.Checkpoints(directory)
    workdir.begin(directory, c)
    self.log = logger.Logger(
      directory, c.finetune.num_steps, 'finetune', ('eval/return',)
    )
    # What a checkpoint's JSON holds beside the replay: agent steps taken,
    # episodes finished, and the agent step of the newest evaluation.
    self.meta = {'agent_step': 0, 'episode': 0, 'evaluated': -1}
    fields = schema.replay_fields(c.dae.num_keypoints, action_size)
    folder = directory / 'replay'
    if self.saved.latest_step() is None:
      self.replay = replay_lib.Replay(folder, fields, c.replay.capacity)
      self.log.resume(-1)
    else:
      self.state, meta = self.saved.restore(self.state)
      self.replay = replay_lib.Replay.restore(
        folder, fields, meta.pop('replay'), c.replay.capacity
      )
      self.meta = meta
      self.log.resume(self.meta['agent_step'])
    self.state = parallel.replicate(self.state)
    self.variables = self._variables()
    update = parallel.pmap_step(
      finetune_step,
      system=self.system,
      model_tx=build.model_optimizer(c),
      behavior_tx=build.behavior_optimizer(c),
      bonus=build.intrinsic_settings(c),
      slow_critic_every=c.behavior.slow_critic_every,
    )
    # A minute on two cores, in which the first episodes are collected.
    shape = c.replay.batch_size, c.replay.segment_length
    example = build.example_replay_batch(c, action_size, shape)
    self.update = parallel.compile_ahead(
      update, self.state, parallel.shard(example), self.update_key
    )
    self.clock = time.time(), self.meta['agent_step'], int(self.state.step)

  def train(self) -> state_lib.FinetuneState:
    c, meta = self.config.finetune, self.meta
    saved_at = meta['agent_step']
    while meta['agent_step'] < c.num_steps:
      self._episode()
      if meta['agent_step'] >= c.prefill:
        while int(self.state.step) < c.initial_updates:
          self._update()
        last = meta['agent_step'] >= c.num_steps
        due = meta['agent_step'] // c.eval_every > (
          meta['evaluated'] // c.eval_every
        )
        if last or due:
          self._evaluate()
        if last or meta['agent_step'] - saved_at >= c.checkpoint_every:
          saved_at = meta['agent_step']
          self.saved.save(
            saved_at, self.state, {**meta, 'replay': self.replay.state()}
          )
    self.log.close()
    self.saved.close()
    self.env.close()
    self.eval_env.close()
    return self.state

  def _episode(self) -> None:
    """Collects one episode, updating every few steps (lines 6-23)."""
    c, meta = self.config.finetune, self.meta
    number, total, success = meta['episode'], 0.0, False
    explore = meta['agent_step'] < c.prefill
    rng = np.random.default_rng([self.config.seed, number])
    self.actor.begin(number)

    def act(step):
      if explore:
        return rollout.random_action(rng, self.env)
      return self.actor(self.variables, step)

    for step, info in rollout.episode(
      self.env, self.extractor, act, self.config.seed, number
    ):
      self.replay.add(step)
      total += float(step['reward'])
      success |= bool(info.get('success', False))
      if step['is_first']:
        continue
      meta['agent_step'] += 1
      self.log.advance(meta['agent_step'])
      if not explore and meta['agent_step'] % c.train_every == 0:
        self._update()
    meta['episode'] += 1
    self.log.scalars(
      meta['agent_step'],
      {
        'episode/return': total,
        'episode/success': float(success),
        'episode/number': meta['episode'],
        'env_step': meta['agent_step'] * self.config.env.action_repeat,
      },
    )

  def _update(self) -> None:
    """One update from replay (lines 10-23)."""
    c, number = self.config, int(self.state.step)
    arrays = self.replay.sample(
      np.random.default_rng([c.seed, 1, number]),
      c.replay.batch_size,
      c.replay.segment_length,
      c.replay.prioritize_ends,
    )
    batch = parallel.shard(build.replay_batch(arrays))
    self.state, metrics = self.update(self.state, batch, self.update_key)
    self.variables = self._variables()
    number += 1
    if number % c.finetune.log_every == 0:
      metrics = jax.device_get(metrics)
      now, step = time.time(), self.meta['agent_step']
      then, last_step, last_update = self.clock
      metrics['time/agent_steps_per_second'] = (step - last_step) / (now - then)
      metrics['time/updates_per_second'] = (number - last_update) / (now - then)
      metrics['updates'] = number
      self.clock = now, step, number
      self.log.scalars(step, metrics)

  def _variables(self) -> dict[str, Any]:
    """What acting needs of the state."""
    return parallel.on_one_device(
      {'params': self.state.params, **self.state.collections}
    )

  def _evaluate(self) -> None:
    """Runs evaluation episodes and keeps the frames of one."""
    returns, successes, frames = evaluate.agent_returns(
      self.eval_env,
      self.eval_extractor,
      self.eval_actor,
      self.variables,
      self.config.finetune.eval_episodes,
    )
    step = self.meta['agent_step']
    self.meta['evaluated'] = step
    self.log.scalars(
      step,
      {
        'eval/return': returns.mean(),
        'eval/return_std': returns.std(),
        'eval/return_min': returns.min(),
        'eval/return_max': returns.max(),
        'eval/success': successes.mean(),
      },
    )
    self.log.video(step, 'eval/episode', frames[::5], fps=10)
    partial = self.directory / f'.{EPISODE_FILE}'
    with open(partial, 'wb') as file:
      np.save(file, frames)
    partial.rename(self.directory / EPISODE_FILE)


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits parameters into the world model's and {'actor', 'critic'}."""
  model = {k: v for k, v in params.items() if k not in _LEARNER}
  return model, {k: params[k] for k in _LEARNER}
