"""Fine-tuning on a robot's own task (Algorithm 2)."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from drp_jax.data import replay as replay_lib
from drp_jax.data import schema
from drp_jax.train import (
  alarms,
  bad_steps,
  batches,
  build,
  checkpoint,
  episode_table,
  evaluate,
  finetune_step,
  inputs,
  logger,
  parallel,
  preemption,
  rollout,
  workdir,
)
from drp_jax.train import state as state_lib

EPISODE_FILE = 'eval_episode.npy'  # frames of the newest evaluation episode
_POLL = 0.1  # seconds between questions whether to end


def finetune(
  config: ml_collections.ConfigDict,
  directory: str | pathlib.Path,
  make_envs: Callable[[], rollout.Environments],
  make_extractor: Callable[[int], rollout.Extractor],
  defaults: ml_collections.ConfigDict | None = None,
) -> state_lib.FinetuneState:
  """Runs Algorithm 2 to its end, going on from the newest checkpoint.

  Checkpoints are taken between rounds of episodes; every episode is a function
  of its number, so a run that was killed repeats what it lost, to the same
  numbers. SIGTERM saves at once, in the middle of a round too and whatever is
  waited for, and ends the process; the next one leads the environments to the
  same place by the same actions.

  Args:
    config: configs/base.py.
    directory: the workdir: config, checkpoints, replay, metrics, events.
    make_envs: opens environments; called for training and for evaluation.
    make_extractor: seed -> streaming extractor of `dae.num_keypoints` points;
      called for systems that see motion.
    defaults: for a workdir older than some settings, see `workdir.compare`.

  Returns:
    The final state.

  Raises:
    ValueError: for settings that do not fit, or that differ from those of the
      workdir, naming the key.
    RuntimeError: if environments fail again and again, another process is in
      the workdir, it cannot be written to, or update after update is not
      finite.
    SystemExit: with code 0, on SIGTERM.
  """
  build.check(config)
  with contextlib.ExitStack() as stack:
    stack.enter_context(workdir.locked(directory))
    start = workdir.compare(
      directory,
      config,
      'finetune',
      checkpoint.latest_step(directory),
      inputs.contents(config, 'finetune'),
      defaults,
    )
    sigterm = stack.enter_context(preemption.Preemption())
    with sigterm.nothing_to_save():
      envs = stack.enter_context(contextlib.closing(make_envs()))
      eval_envs = stack.enter_context(contextlib.closing(make_envs()))
    run = _Run(
      config, pathlib.Path(directory), start, envs, eval_envs, make_extractor
    )
    return run.train(sigterm)


class _Run:
  """One fine-tuning: what its stages share."""

  def __init__(self, config, directory, start, envs, eval_envs, make_extractor):
    c = self.config = config
    self.directory = directory
    self.envs, self.eval_envs = envs, eval_envs
    self.system = build.system(c, envs.action_size, parallel.AXIS)
    # One serves both, since evaluation comes between rounds of training.
    self.extractor = make_extractor(c.seed) if self.system.sees_motion else None
    self.update_key, act_key, eval_key = jax.random.split(
      jax.random.key(c.seed + 1), 3
    )
    num_keypoints = build.keypoints(c)
    self.random = rollout.RandomActor(c.seed, envs.action_size)
    self.actor = rollout.PolicyActor(
      self.system, envs.num_envs, num_keypoints, act_key, explore=True
    )
    self.eval_actor = rollout.PolicyActor(
      self.system, eval_envs.num_envs, num_keypoints, eval_key, explore=False
    )
    self.state = finetune_step.init_state(c, self.system, envs.action_size)
    start.record(directory)
    self.saved = checkpoint.Checkpoints(directory)
    self.log = logger.Logger(
      directory, c.finetune.num_steps, 'finetune', ('env_step', 'eval/return')
    )
    # What a checkpoint's JSON holds beside the replay: agent steps taken,
    # episodes begun and those of them that were dropped, the agent step of the
    # newest evaluation, lines of metrics, updates that were skipped, and, in
    # the middle of a round, how many actions were taken, whether at random, and
    # which environments failed and in how many it was played.
    self.meta = {
      'agent_step': 0,
      'episode': 0,
      'dropped': 0,
      'evaluated': -1,
      'lines': 0,
      'bad_steps': [0, 0],
      'round': None,
    }
    self._restore(schema.replay_fields(num_keypoints, envs.action_size))
    self.log.say(evaluate.schedule(c))
    self.log.say(self.replay.describe())
    self.state = parallel.replicate(self.state)
    self.variables = self._variables()
    step, settings = finetune_step.update_step(c)
    update = parallel.pmap_step(step, system=self.system, **settings)
    # A minute on two cores, in which the first episodes are collected.
    shape = c.replay.batch_size, c.replay.segment_length
    example = batches.example_replay_batch(c, envs.action_size, shape)
    self.update, self.compiled = parallel.compile_ahead(
      update, self.state, parallel.shard(example), self.update_key
    )
    self.updates = int(self.state.step)
    self.bad = bad_steps.BadSteps(
      directory, c.optim.max_bad_steps, self.meta['bad_steps']
    )
    self.watch = alarms.Alarms(build.max_entropy(c))
    self.terminations = alarms.Terminations(build.learns_terminations(c))
    self.clock = time.monotonic(), self.meta['agent_step'], self.updates

  def train(self, sigterm: preemption.Preemption) -> state_lib.FinetuneState:
    self.sigterm = sigterm
    try:
      while self.meta['round'] or not self._between_rounds():
        self._round()
    except rollout.Stopped:
      step = self.meta['agent_step']
      self.log.say(f'SIGTERM: saved at step {step}, the same command goes on.')
      raise SystemExit(0) from None
    finally:
      self.log.close()
      self.saved.close()
    return self.state

  def _between_rounds(self) -> bool:
    """Learns, evaluates and saves where it is time; whether this is the end."""
    c, meta = self.config.finetune, self.meta
    try:
      if not self._exploring():
        self._wait_for_compiler()
        while self.updates < c.initial_updates:
          self._leave_if_asked()
          self._update()
        step, evaluated = meta['agent_step'], meta['evaluated']
        if step > evaluated and evaluate.due(self.config, step, evaluated):
          self._evaluate()
      self._leave_if_asked()
    except rollout.Stopped:
      self._save()
      raise
    last = meta['agent_step'] >= c.num_steps
    if last or meta['agent_step'] - self.saved_at >= c.checkpoint_every:
      self._save()
    return last

  def _wait_for_compiler(self) -> None:
    while not self.compiled():
      self._leave_if_asked()
      time.sleep(_POLL)

  def _leave_if_asked(self) -> None:
    if self.sigterm.requested:
      raise rollout.Stopped(())

  def _save(self, middle: Any = None) -> None:
    """Writes a checkpoint.

    Args:
      middle: of a round, what goes on with it; None between rounds.
    """
    self.bad.settle(self.state, self.updates)
    self.saved_at = self.meta['agent_step']
    # There is one if the run was stopped twice before it took a step. What it
    # learned since the first time, it learns again.
    if self.saved.latest_step() == self.saved_at:
      return
    self.meta |= {'lines': self.log.sync(), 'bad_steps': self.bad.counts}
    # One copy: orbax would cut what several devices hold to pieces.
    state = parallel.on_one_device(self.state)
    meta = {**self.meta, 'replay': self.replay.state()}
    self.saved.save(self.saved_at, state, meta, middle)

  def _exploring(self) -> bool:
    """Whether actions are random, and there is nothing to learn from yet."""
    prefilled = self.meta['agent_step'] >= self.config.finetune.prefill
    return not (prefilled and self.replay.num_episodes)

  def _round(self) -> None:
    """Collects an episode of every environment (lines 6-9)."""
    meta = self.meta
    first, count = meta['episode'], self.envs.num_envs
    numbers = range(first, first + count)
    middle = meta['round']
    explore = middle['explore'] if middle else self._exploring()
    if not explore:
      self._wait_for_compiler()
    actor = self.random if explore else self.actor
    actor.begin(numbers)
    taken = self._go_on(middle) if middle else ()
    try:
      episodes = rollout.play_round(
        self.envs,
        self.extractor,
        actor if explore else lambda steps: actor(self.variables, steps),
        self.config.seed,
        numbers,
        functools.partial(self._advance, explore),
        lambda: self.sigterm.requested,
        taken,
        middle.get('failed', ()) if middle else (),
      )
    except rollout.Stopped as stopped:
      steps = len(stopped.actions)
      if steps:  # otherwise the round has not begun
        meta['round'] = {
          'steps': steps,
          'explore': explore,
          'failed': stopped.failed,
          'num_envs': count,
        }
        self._save({'actions': stopped.actions, 'carry': self.actor.carry})
      else:
        self._save()
      raise
    meta['round'] = None
    self.terminations.look(episodes)
    for episode in episodes:
      self.replay.add_episode(episode.steps)
    meta['episode'] += count
    meta['dropped'] += count - len(episodes)
    step = meta['agent_step']
    common = {'env_step': self._env_step(), 'episode/dropped': meta['dropped']}
    for episode in episodes:
      own = {
        'episode/return': episode.total_reward,
        'episode/success': float(episode.success),
        'episode/length': episode.length,
        'episode/number': episode.number + 1,
      }
      self.log.scalars(step, {**own, **common})

  def _go_on(self, middle: dict[str, Any]) -> np.ndarray:
    """Leads the actor into the middle of a round; actions taken [t, N, A]."""
    steps, envs = middle['steps'], self.envs
    shape = steps, envs.num_envs, envs.action_size
    template = {
      'actions': jax.ShapeDtypeStruct(shape, np.float32),
      'carry': self.actor.carry,
    }
    found = self.saved.restore_extra(template)
    if middle['explore']:
      self.random.skip(steps)
    else:
      self.actor.go_on(found['carry'], steps)
    return np.asarray(found['actions'])

  def _advance(self, explore: bool, steps: int) -> None:
    """Counts agent steps; updates every few of them, while they are taken."""
    every, before = self.config.finetune.train_every, self.meta['agent_step']
    self.meta['agent_step'] += steps
    self.log.advance(self.meta['agent_step'])
    if not explore:
      for _ in range((before + steps) // every - before // every):
        self._update()

  def _update(self) -> None:
    """One update from replay (lines 10-23). Returns before it is computed."""
    c = self.config
    arrays = self.replay.sample(
      np.random.default_rng([c.seed, 1, self.updates]),
      c.replay.batch_size,
      c.replay.segment_length,
      c.replay.prioritize_ends,
      across_ends=c.behavior.continuation,
    )
    batch = batches.replay_batch(arrays)
    self.state, metrics = self.update(
      self.state, parallel.shard(batch), self.update_key
    )
    self.variables = self._variables()
    self.updates += 1
    self.bad.add(self.updates, batch, metrics['skipped'], self.state)
    if self.updates % c.finetune.log_every == 0:
      self.bad.settle(self.state, self.updates)
      metrics = jax.device_get(metrics)
      now, step = time.monotonic(), self.meta['agent_step']
      then, last_step, last_update = self.clock
      seconds = now - then
      metrics |= {
        'time/agent_steps_per_second': (step - last_step) / seconds,
        'time/updates_per_second': (self.updates - last_update) / seconds,
        'updates': self.updates,
        'env_step': self._env_step(),
        'skipped': self.bad.total,
        'replay/corrupt': self.replay.num_corrupt,
      }
      self.clock = now, step, self.updates
      self.log.scalars(step, metrics)
      self.watch.look(self.updates, metrics)

  def _evaluate(self) -> None:
    """Plays evaluation episodes; keeps a row of each and frames of one."""
    step, count = self.meta['agent_step'], self.config.finetune.eval_episodes
    rows, frames = evaluate.agent_episodes(
      self.eval_envs,
      self.extractor,
      self.eval_actor,
      self.variables,
      count,
      lambda: self.sigterm.requested,
    )
    self.meta['evaluated'] = step
    steps = {'step': step, 'env_step': self._env_step()}
    episode_table.append(self.directory, [{**steps, **row} for row in rows])
    metrics = evaluate.summary(rows, count)
    self.log.scalars(step, {**metrics, 'env_step': self._env_step()})
    if frames is not None:
      self.log.video(step, 'eval/episode', frames[::5], fps=10)
      partial = self.directory / f'.{EPISODE_FILE}'
      with open(partial, 'wb') as file:
        np.save(file, frames)
      partial.rename(self.directory / EPISODE_FILE)

  def _restore(self, fields: dict[str, schema.Field]) -> None:
    """Goes back to the newest checkpoint, or begins."""
    c, folder = self.config.replay, self.directory / 'replay'
    begun = -1
    self.saved_at = 0
    if self.saved.latest_step() is None:
      self.replay = replay_lib.Replay(folder, fields, c.capacity, c.flow_dtype)
    else:
      self.state, found = self.saved.restore(self.state)
      self.meta |= {'lines': None} | found  # all, if it says nothing of them
      self.replay = replay_lib.Replay.restore(
        folder, fields, self.meta.pop('replay'), c.capacity, c.flow_dtype
      )
      begun = self.saved_at = self.meta['agent_step']
    self.log.resume(begun, self.meta['lines'])
    episode_table.resume(self.directory, self.meta['evaluated'])
    self._drop_round_of_others()

  def _drop_round_of_others(self) -> None:
    """Drops the round under way if `env.num_envs` is not what it was.

    Its steps stay counted and what was learned during it stays learned; its
    episodes are lost like those of environments that fail.
    """
    middle, own = self.meta['round'], self.envs.num_envs
    count = middle.get('num_envs', own) if middle else own
    if count != own:
      self.meta['round'] = None
      self.meta['episode'] += count
      self.meta['dropped'] += count
      self.log.say(
        f'config.env.num_envs={own}, but the run was stopped in the middle of'
        f' episodes of {count} environments: these episodes are dropped.'
      )

  def _env_step(self) -> int:
    """Control steps of the environments (D14)."""
    return self.meta['agent_step'] * self.config.env.action_repeat

  def _variables(self) -> dict[str, Any]:
    """What acting needs of the state."""
    return parallel.on_one_device(
      {'params': self.state.params, **self.state.collections}
    )
