"""The runs of a study: commands, folders, progress."""

import ast
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from configs import ablations, base, finetune_dmcr, finetune_metaworld, pretrain
from configs.studies import systems, throughput
from drp_jax.data import report
from drp_jax.runs import limits, logger, ranges, workdir
from drp_jax.runs import settings as settings_lib
from drp_jax.systems import registry

_MODULES = {
  'pretrain': 'experiments.run_pretrain',
  'dmcr': 'experiments.run_dmcr',
  'metaworld': 'experiments.run_metaworld',
}
_FILES = {
  'pretrain': (pretrain, 'configs/pretrain.py'),
  'dmcr': (finetune_dmcr, 'configs/finetune_dmcr.py'),
  'metaworld': (finetune_metaworld, 'configs/finetune_metaworld.py'),
}
# Command that fine-tunes in a suite, and settings that its config lacks.
_SUITES = {
  'dmcr': ('dmcr', ()),
  'dmc': ('dmcr', ('env.suite=dmc',)),
  'metaworld': ('metaworld', ()),
}
# Metrics of the speed of a stage.
_RATES = {
  'pretrain': 'time/steps_per_second',
  'finetune': 'time/updates_per_second',
}
# Settings of a run's command that are not in its config here.
_PLACES = ('init_from', 'data.shards_dir', 'finetune.flow_scale')


@dataclasses.dataclass(frozen=True)
class Run:
  """One pre-training or fine-tuning.

  Attributes:
    stage: 'pretrain' or 'finetune'.
    module: the command.
    config_file: its --config.
    settings: 'name=value', its other --config.* flags except paths.
    config: the resulting config.
    folder: its workdir, below that of the study. Its name depends on the
      config, so studies with the same run share it.
    needs: folder of the pre-training that it loads; None if there is none.
    shards_dir: shards of a pre-training, or of a fine-tuning that loads no
      pre-training and reads the flow scale there; None for others.
  """

  stage: str
  module: str
  config_file: str
  settings: tuple[str, ...]
  config: ml_collections.ConfigDict
  folder: str
  needs: str | None = None
  shards_dir: str | None = None

  @property
  def num_steps(self) -> int:
    """Number of gradient steps, or of agent steps in fine-tuning."""
    return self.config[self.stage].num_steps


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of a study's matrix, and its fine-tuning."""

  system: str
  task: str
  seed: int
  preset: str
  run: Run


def cells(study: ml_collections.ConfigDict) -> list[Cell]:
  """Lists all cells of the matrix, seed by seed.

  Args:
    study: configs/studies/base.py.

  Raises:
    ValueError: for an unknown value; the message names the key of the study.
  """
  limits.check(study, ranges.STUDY)
  for key, allowed in (
    ('systems', tuple(systems.SYSTEMS)),
    ('presets', base.PRESETS),
  ):
    for name in study[key]:
      if name not in allowed:
        raise ValueError(
          f'config.{key} has {name!r}, which is not in {allowed}.'
        )
  for key in ('systems', 'tasks', 'seeds', 'presets'):
    if not study[key]:
      raise ValueError(f'config.{key} is empty: the study has no runs.')
  return [
    Cell(
      system, task, seed, preset, _finetune(study, system, task, seed, preset)
    )
    for preset in study.presets
    for seed in study.seeds
    for task in study.tasks
    for system in study.systems
  ]


def runs(study: ml_collections.ConfigDict) -> list[Run]:
  """Lists the distinct runs of a study, pre-trainings before their first use.

  Raises:
    ValueError: for settings of a run that its command would refuse, or as
      `cells`.
  """
  found = {}
  for cell in cells(study):
    name = systems.SYSTEMS[cell.system].pretraining
    if name is not None:
      run = _pretrain(study, name, cell.preset)
      found.setdefault(run.folder, run)
    found.setdefault(cell.run.folder, cell.run)
  for run in found.values():
    _check(run)
  return list(found.values())


def command(run: Run, root: pathlib.Path) -> list[str]:
  """Lists the arguments of a run's command, from 'python' on.

  Args:
    run: from `runs`.
    root: workdir of the study.

  Returns:
    The list; unknown values are in angle brackets.
  """
  args = ['python', '-m', run.module, f'--config={run.config_file}']
  args += [f'--config.{setting}' for setting in run.settings]
  if run.needs:
    args.append(f'--config.init_from={root / run.needs}')
  if run.stage == 'pretrain':
    args.append(f'--config.data.shards_dir={run.shards_dir or "<shards>"}')
  elif run.shards_dir is not None:
    args.append(f'--config.finetune.flow_scale={_flow_scale(run)}')
  return [*args, f'--workdir={root / run.folder}']


def step(run: Run, root: pathlib.Path) -> int | None:
  """Returns the step of the run's newest checkpoint; None without one."""
  folder = root / run.folder / 'checkpoints'
  steps = [int(p.name) for p in folder.glob('*') if p.name.isdecimal()]
  return max(steps, default=None)


def complete(run: Run, root: pathlib.Path) -> bool:
  """Returns whether the run is complete, by its workdir."""
  newest = step(run, root)
  return newest is not None and newest >= run.num_steps


def changes(run: Run, root: pathlib.Path) -> list[str]:
  """Lists settings of the run's workdir that differ from today's.

  The name of the folder does not show defaults that have changed since.
  """
  path = root / run.folder / 'config.json'
  if not path.exists():
    return []
  changed = settings_lib.differences(
    settings_lib.flat(workdir.read_config(path.parent)),
    settings_lib.flat(run.config),
    {},
  )
  free = (*settings_lib.MAY_CHANGE, *_PLACES)
  return settings_lib.describe(settings_lib.without(changed, free))


def hours(run: Run, rates: Sequence[throughput.Throughput]) -> float | None:
  """Estimates the hours of a whole run; None if nothing was measured.

  Args:
    run: from `runs`.
    rates: rates of one hardware; the first that matches is used.
  """
  for rate in rates:
    if _kind(run) == (rate.stage, rate.preset, rate.agent, rate.motion):
      seconds = _frames(run) / rate.frames / rate.rate
      return _updates(run) * seconds / 3600
  return None


def seen(
  found: Sequence[Run], root: pathlib.Path
) -> list[throughput.Throughput]:
  """Computes the median speeds of the runs that have begun here."""
  rates = {}
  for run in found:
    lines = logger.read_metrics(root / run.folder)
    name = _RATES[run.stage]
    values = [line[name] for line in lines if line.get(name, 0) > 0]
    rates.setdefault((*_kind(run), _frames(run)), []).extend(values)
  return [
    throughput.Throughput(
      'as here', *kind, float(np.median(values)), frames, 'metrics.jsonl'
    )
    for (*kind, frames), values in rates.items()
    if values
  ]


def _pretrain(
  study: ml_collections.ConfigDict, system: str, preset: str
) -> Run:
  file, settings, config, label = _config(
    system, 'pretrain', preset, tuple(study.pretrain)
  )
  folder = f'pretrain/{label}-{preset}-{_key(config, [study.shards_dir])}'
  return Run(
    'pretrain',
    _MODULES['pretrain'],
    file,
    settings,
    config,
    folder,
    shards_dir=study.shards_dir,
  )


def _finetune(
  study: ml_collections.ConfigDict,
  system: str,
  task: str,
  seed: int,
  preset: str,
) -> Run:
  suite, _, name = task.partition('/')
  if suite not in _SUITES or not name:
    raise ValueError(
      f'config.tasks has {task!r}; tasks are'
      f' {", ".join(f"{known}/<name>" for known in _SUITES)}.'
    )
  stage, own = _SUITES[suite]
  more = (*own, *study.finetune, f'task={name}', f'seed={seed}')
  file, settings, config, label = _config(system, stage, preset, more)
  loaded = systems.SYSTEMS[system].pretraining
  pretraining = loaded and _pretrain(study, loaded, preset)
  needs = pretraining.folder if pretraining else None
  # The flow scale, if no pre-training holds it; IPV's sees no flow.
  shards_dir = None
  if config.agent == 'drp' and not (
    pretraining and pretraining.config.agent == 'drp'
  ):
    shards_dir = study.shards_dir
  key = _key(config, [needs, shards_dir])
  return Run(
    'finetune',
    _MODULES[stage],
    file,
    settings,
    config,
    f'finetune/{suite}-{name}/{label}-{preset}-seed{seed}-{key}',
    needs,
    shards_dir,
  )


def _config(
  system: str, stage: str, preset: str, more: tuple[str, ...]
) -> tuple[str, tuple[str, ...], ml_collections.ConfigDict, str]:
  """Returns a run's --config, settings, resulting config and folder name.

  Args:
    system: name in configs/studies/systems.py.
    stage: 'pretrain', 'dmcr' or 'metaworld'.
    preset: preset of configs/base.py.
    more: settings of the study.
  """
  module, file = _FILES[stage]
  own = systems.SYSTEMS[system].changes
  if system in ablations.ABLATIONS:
    variant = f'{system},{stage},{preset}'
    file = f'configs/ablations.py:{variant}'
    config = ablations.get_config(variant)
  else:
    file, config = f'{file}:{preset}', module.get_config(preset)
  for setting in own:
    _set(config, setting)
  plain = module.get_config(preset)
  plain.agent = config.agent
  # Another name of the agent itself: K = 16 of Table 2 is DRP.
  label = config.agent if config == plain else system
  for setting in more:
    _set(config, setting)
  return file, (*own, *more), config, label


def _set(config: ml_collections.ConfigDict, setting: str) -> None:
  """Changes one value, like the command line.

  Raises:
    ValueError: if there is no such key, or its values have another type.
  """
  name, _, text = setting.partition('=')
  try:
    value = ast.literal_eval(text)
  except (SyntaxError, ValueError):
    value = text
  try:
    config.update_from_flattened_dict({name: value})
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(
      f'{setting!r} does not fit configs/base.py: {error}'
    ) from error


def _check(run: Run) -> None:
  config = run.config.copy_and_resolve_references()
  config.init_from = run.needs or ''
  try:
    registry.check(config)
  except ValueError as error:
    raise ValueError(f'{run.folder}: {error}') from error


def _key(config: ml_collections.ConfigDict, others: list[str | None]) -> str:
  """Hashes everything in which a run differs from the paper's defaults."""
  default, own = _defaults(), settings_lib.flat(config)
  content = {k: v for k, v in own.items() if v != default[k]}
  text = json.dumps([content, others], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]


@functools.cache
def _defaults() -> dict[str, Any]:
  return settings_lib.flat(base.get_config())


def _flow_scale(run: Run) -> str:
  path = pathlib.Path(run.shards_dir or '<shards>')
  try:
    return repr(report.read_report(path)['flow_scale'])
  except (OSError, ValueError):
    return f'<flow_scale of {path / "report.json"}>'


def _kind(run: Run) -> tuple[str, str, str, str]:
  c = run.config
  return run.stage, c.preset, c.agent, c.motion


def _frames(run: Run) -> int:
  c = run.config
  if run.stage == 'pretrain':
    return c.data.batch_size * c.data.clip_length
  return c.replay.batch_size * c.replay.segment_length


def _updates(run: Run) -> int:
  if run.stage == 'pretrain':
    return run.num_steps
  c = run.config.finetune
  return c.initial_updates + (c.num_steps - c.prefill) // c.train_every
