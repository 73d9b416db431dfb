"""Fine-tuning on a robot's own task (Algorithm 2)."""

import contextlib
import io
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from drp_jax import files, types
from drp_jax.data import replay, schema
from drp_jax.runs import (
  alarms,
  checkpoint,
  clocks,
  episode_table,
  inputs,
  logger,
  parallel,
  preemption,
  workdir,
)
from drp_jax.systems import definition, registry
from drp_jax.train import collector, evaluate, rollout, run_state, updater

EPISODE_FILE = 'eval_episode.npy'  # frames of the newest evaluation episode


def finetune(
  config: ml_collections.ConfigDict,
  directory: str | pathlib.Path,
  make_envs: Callable[[], rollout.Environments],
  make_extractor: Callable[[int], rollout.Extractor],
  defaults: ml_collections.ConfigDict | None = None,
) -> types.FinetuneState:
  """Runs Algorithm 2 to its end, going on from the newest checkpoint.

  Checkpoints are taken between rounds of episodes; every episode is a function
  of its number, so a run that was killed repeats what it lost, to the same
  numbers. SIGTERM saves at once, in the middle of a round too and whatever is
  waited for, and ends the process; the next one replays the saved actions to
  restore the environments.

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
  registry.check(config)
  directory = pathlib.Path(directory)
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
    built = registry.build(config, envs.action_size, parallel.AXIS)
    # One serves both, since evaluation comes between rounds of training.
    extractor = (
      make_extractor(config.seed) if built.system.sees_motion else None
    )
    state = built.finetuning.init()
    start.record(directory)
    saved = stack.enter_context(
      contextlib.closing(checkpoint.Checkpoints(directory))
    )
    log = stack.enter_context(
      contextlib.closing(
        logger.Logger(
          directory,
          config.finetune.num_steps,
          'finetune',
          ('env_step', 'eval/return'),
        )
      )
    )
    fields = schema.replay_fields(built.num_keypoints, envs.action_size)
    state, run, episodes = _restore(config, directory, saved, state, fields)
    log.resume(
      run.agent_step if saved.latest_step() is not None else -1, run.lines
    )
    episode_table.resume(directory, run.evaluated)
    _drop_round_of_others(run, envs.num_envs, log)
    log.say(evaluate.schedule(config))
    log.say(episodes.describe())
    update_key, act_key, eval_key = jax.random.split(
      jax.random.key(config.seed + 1), 3
    )
    return _Loop(
      config,
      run,
      saved,
      episodes,
      log,
      sigterm,
      updater.Updater(
        config, built, state, run, episodes, directory, log, update_key
      ),
      collector.Collector(config, built, envs, extractor, act_key),
      _Evaluation(
        config, directory, built, eval_envs, extractor, log, eval_key
      ),
      alarms.Terminations(built.learns_terminations),
    ).train()


class _Loop:
  """Algorithm 2: episodes, updates meanwhile, evaluations, checkpoints."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    run: run_state.RunState,
    saved: checkpoint.Checkpoints,
    episodes: replay.Replay,
    log: logger.Logger,
    sigterm: preemption.Preemption,
    learning: updater.Updater,
    collecting: collector.Collector,
    evaluation: '_Evaluation',
    terminations: alarms.Terminations,
  ):
    self._config, self._run, self._saved = config, run, saved
    self._episodes, self._log, self._sigterm = episodes, log, sigterm
    self._updater, self._collector = learning, collecting
    self._evaluation, self._terminations = evaluation, terminations
    self._saved_at = run.agent_step
    self._update_clock = clocks.Every(config.finetune.train_every)

  def train(self) -> types.FinetuneState:
    """Runs until all steps are taken, or SIGTERM."""
    try:
      while self._run.round or not self._between_rounds():
        self._round()
    except rollout.Stopped:
      self._save()
      step = self._run.agent_step
      self._log.say(f'SIGTERM: saved at step {step}, the same command goes on.')
      raise SystemExit(0) from None
    return self._updater.state

  def _between_rounds(self) -> bool:
    """Learns, evaluates and saves where it is time; whether this is the end."""
    c, run = self._config.finetune, self._run
    if not self._exploring():
      self._updater.wait(self._leave_if_asked)
      while self._updater.updates < c.initial_updates:
        self._leave_if_asked()
        self._updater.update()
      step, evaluated = run.agent_step, run.evaluated
      if step > evaluated and evaluate.due(self._config, step, evaluated):
        self._evaluation.play(
          run, self._updater.variables, lambda: self._sigterm.requested
        )
    self._leave_if_asked()
    last = run.agent_step >= c.num_steps
    if last or run.agent_step - self._saved_at >= c.checkpoint_every:
      self._save()
    return last

  def _round(self) -> None:
    """Collects an episode of every environment (lines 6-9)."""
    run = self._run
    explore = run.round.explore if run.round else self._exploring()
    if not explore:
      self._updater.wait(self._leave_if_asked)

    def meanwhile(steps):  # lines 10-23
      before = run.agent_step
      run.agent_step += steps
      self._log.advance(run.agent_step)
      if not explore:
        for _ in range(self._update_clock.passed(before, run.agent_step)):
          self._updater.update()

    played = self._collector.play(
      run,
      self._saved,
      explore,
      lambda: self._updater.variables,
      meanwhile,
      lambda: self._sigterm.requested,
    )
    for episode in played:
      self._terminations.look(episode.number, episode.steps['is_terminal'])
      self._episodes.add_episode(episode.steps)
      self._log.scalars(
        run.agent_step,
        {
          'episode/return': episode.total_reward,
          'episode/success': float(episode.success),
          'episode/length': episode.length,
          'episode/number': episode.number + 1,
          'env_step': run.agent_step * self._config.env.action_repeat,
          'episode/dropped': run.dropped,
        },
      )

  def _exploring(self) -> bool:
    """Whether actions are random, and there is nothing to learn from yet."""
    prefilled = self._run.agent_step >= self._config.finetune.prefill
    return not (prefilled and self._episodes.num_episodes)

  def _leave_if_asked(self) -> None:
    if self._sigterm.requested:
      raise rollout.Stopped(())

  def _save(self) -> None:
    """Writes a checkpoint, with the middle of a round if there is one."""
    run = self._run
    self._updater.settle()
    self._saved_at = run.agent_step
    # There is one if the run was stopped twice before it took a step. What it
    # learned since the first time, it learns again.
    if self._saved.latest_step() == self._saved_at:
      return
    run.lines = self._log.sync()
    # One copy: orbax would save replicated arrays as shards.
    state = parallel.on_one_device(self._updater.state)
    meta = {**run.to_json(), 'replay': self._episodes.state()}
    middle = self._collector.middle if run.round else None
    self._saved.save(self._saved_at, state, meta, middle)


class _Evaluation:
  """Plays evaluation episodes; keeps a row of each and frames of one."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    directory: pathlib.Path,
    built: definition.Built,
    envs: rollout.Environments,
    extractor: rollout.Extractor | None,
    log: logger.Logger,
    key: jax.Array,
  ):
    self._config, self._directory, self._log = config, directory, log
    self._envs, self._extractor = envs, extractor
    self._actor = rollout.PolicyActor(
      built.system, envs.num_envs, built.num_keypoints, key, explore=False
    )

  def play(
    self, run: run_state.RunState, variables: Any, stop: Callable[[], bool]
  ) -> None:
    """Evaluates `variables`; notes in `run` that it was done."""
    step, count = run.agent_step, self._config.finetune.eval_episodes
    rows, frames = evaluate.agent_episodes(
      self._envs, self._extractor, self._actor, variables, count, stop
    )
    run.evaluated = step
    env_step = step * self._config.env.action_repeat
    steps = {'step': step, 'env_step': env_step}
    episode_table.append(self._directory, [{**steps, **row} for row in rows])
    metrics = evaluate.summary(rows, count)
    self._log.scalars(step, {**metrics, 'env_step': env_step})
    if frames is not None:
      self._log.video(step, 'eval/episode', frames[::5], fps=10)
      content = io.BytesIO()
      np.save(content, frames)
      files.write(self._directory / EPISODE_FILE, content.getvalue())


def _restore(
  config: ml_collections.ConfigDict,
  directory: pathlib.Path,
  saved: checkpoint.Checkpoints,
  state: types.FinetuneState,
  fields: dict[str, schema.Field],
) -> tuple[types.FinetuneState, run_state.RunState, replay.Replay]:
  """Goes back to the newest checkpoint, or begins."""
  c, folder = config.replay, directory / 'replay'
  if saved.latest_step() is None:
    begun = replay.Replay(folder, fields, c.capacity, c.flow_dtype)
    return state, run_state.RunState(), begun
  state, found = saved.restore(state)
  episodes = replay.Replay.restore(
    folder, fields, found.pop('replay'), c.capacity, c.flow_dtype
  )
  return state, run_state.RunState.from_json(found), episodes


def _drop_round_of_others(
  run: run_state.RunState, num_envs: int, log: logger.Logger
) -> None:
  """Drops the round under way if `env.num_envs` is not what it was.

  Its steps stay counted and what was learned during it stays learned; its
  episodes are lost like those of environments that fail.
  """
  count = (run.round and run.round.num_envs) or num_envs
  if count != num_envs:
    run.round = None
    run.episode += count
    run.dropped += count
    log.say(
      f'config.env.num_envs={num_envs}, but the run was stopped in the middle'
      f' of episodes of {count} environments: these episodes are dropped.'
    )
