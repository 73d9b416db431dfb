"""Pre-training from videos (Algorithm 1)."""

import pathlib
from typing import Any, cast

import jax
import ml_collections
import numpy as np

from drp_jax import types
from drp_jax.data import input_pipeline, report
from drp_jax.runs import (
  alarms,
  bad_steps,
  checkpoint,
  clocks,
  inputs,
  logger,
  parallel,
  preemption,
  workdir,
)
from drp_jax.systems import contract, registry
from drp_jax.train import batches, evaluate


def pretrain(
  config: ml_collections.ConfigDict,
  directory: str | pathlib.Path,
  defaults: ml_collections.ConfigDict | None = None,
) -> types.PretrainState:
  """Runs Algorithm 1 to its end, going on from the newest checkpoint.

  On SIGTERM it saves after the step under way and ends the process.

  Args:
    config: configs/base.py.
    directory: the workdir: config, checkpoints, metrics, TensorBoard events.
    defaults: for a workdir older than some settings, see `workdir.compare`.

  Returns:
    The final state.

  Raises:
    ValueError: for settings or data that do not fit, or that differ from those
      of the workdir, naming the key.
    RuntimeError: if another process is in the workdir, it cannot be written to,
      or step after step is not finite.
    SystemExit: with code 0, on SIGTERM.
  """
  registry.check(config)
  own = parallel.own_folder(directory)
  with workdir.locked(own), preemption.Preemption() as sigterm:
    start = workdir.compare(
      directory,
      config,
      'pretrain',
      checkpoint.latest_step(directory),
      inputs.contents(config, 'pretrain'),
      defaults,
    )
    return _pretrain(config, pathlib.Path(directory), own, start, sigterm)


def _pretrain(
  config: ml_collections.ConfigDict,
  directory: pathlib.Path,
  own: pathlib.Path,
  start: workdir.Start,
  sigterm: preemption.Preemption,
) -> types.PretrainState:
  built = registry.build(config, 1, parallel.AXIS)
  if built.pretraining is None:
    raise ValueError(
      f'config.agent={config.agent!r} has no pre-training: fine-tune it from'
      ' scratch.'
    )
  iterator = input_pipeline.make_iterator(
    config.data.shards_dir,
    'train',
    config.data.clip_length,
    config.data.batch_size,
    built.num_keypoints,
    config.seed,
    jax.process_index(),
    jax.process_count(),
  )
  held_out = evaluate.held_out_batches(config, built.num_keypoints)
  flow_scale = report.read_report(config.data.shards_dir)['flow_scale']
  state = built.pretraining.init(flow_scale)
  start.record(own)
  saved = checkpoint.Checkpoints(directory)
  log = logger.Logger(
    own, config.pretrain.num_steps, 'pretrain', ('loss/total',)
  )
  meta: dict[str, Any] = {'lines': 0, 'bad_steps': [0, 0]}
  if saved.latest_step() is not None:
    state, found = saved.restore(state)
    meta |= {'lines': None} | found  # all lines, if it says nothing of them
    iterator.set_state(meta['iterator'])
  first = int(state.step)
  parallel.check_agreement(
    'The newest checkpoint that processes see is not the same; the workdir has'
    ' to be a folder that they share',
    first,
  )
  log.resume(first if first else -1, meta['lines'])
  bad = bad_steps.BadSteps(own, config.optim.max_bad_steps, meta['bad_steps'])
  watch = alarms.Alarms(built.max_entropy)
  system = cast(contract.Pretrains, built.system)

  state = parallel.replicate(state)
  run_key = jax.random.key(config.seed + 1)
  step = parallel.pmap_step(built.pretraining.update)
  speed = clocks.Speed(steps=first)
  log_clock, eval_clock, save_clock = (
    clocks.Every(config.pretrain[f'{name}_every'])
    for name in ('log', 'eval', 'checkpoint')
  )
  for number in range(first + 1, config.pretrain.num_steps + 1):
    batch = batches.video_batch(next(iterator))
    state, metrics = step(state, parallel.shard(batch), run_key)
    bad.add(number, batch, metrics['skipped'], state)
    log.advance(number)
    last = number == config.pretrain.num_steps
    stop = sigterm.stops_after(number) and not last
    if log_clock.at(number) or last:
      bad.settle(state, number)
      metrics = jax.device_get(metrics) | speed.measure(steps=number)
      metrics['skipped'] = bad.total
      log.scalars(number, metrics)
      watch.look(number, metrics)
    if held_out and (eval_clock.at(number) or last):
      watch.look(number, _evaluate(system, state, held_out, number, log))
    if save_clock.at(number) or last or stop:
      bad.settle(state, number)
      meta = {
        'iterator': _json(iterator.get_state()),
        'lines': log.sync(),
        'bad_steps': bad.counts,
      }
      saved.save(number, state, meta)
    if stop:
      log.say(f'SIGTERM: saved at step {number}, the same command goes on.')
      log.close()
      saved.close()
      raise SystemExit(0)
  log.close()
  saved.close()
  return state


def _evaluate(
  system: contract.Pretrains,
  state: types.PretrainState,
  batches: list[types.VideoBatch],
  step: int,
  log: logger.Logger,
) -> dict[str, float]:
  """Writes down and returns how it does on held-out clips."""
  variables = parallel.on_one_device(
    {'params': state.params, **state.collections}
  )
  metrics, video = evaluate.held_out(system, variables, batches)
  log.scalars(step, metrics)
  log.image(step, 'open_loop/frames', np.concatenate(video[::6], 0))
  log.video(step, 'open_loop/clips', video, fps=5)
  return metrics


def _json(value: Any) -> Any:
  """Turns NumPy numbers of an iterator's state into JSON values."""
  if isinstance(value, dict):
    return {key: _json(item) for key, item in value.items()}
  if isinstance(value, np.generic):
    return value.item()
  return value
