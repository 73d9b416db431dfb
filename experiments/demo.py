"""Runs the whole pipeline, from videos to an acting agent; see configs/demo.py.

Complete stages are skipped, and an interrupted stage resumes. The workdir holds

  videos/ shards/     videos, and atomic actions extracted from them
  pretrain/ finetune/ the workdirs of the two runs
  times.json          seconds of every stage, over all starts of the demo
  report.html         the results on one page
"""

import contextlib
import dataclasses
import json
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from configs import base
from configs import demo as demo_config
from drp_jax import files
from drp_jax.runs import limits, ranges, settings
from drp_jax.systems import registry
from drp_jax.train import pretrain
from experiments import (
  demo_report,
  demo_verdicts,
  finetune_work,
  launch,
  run_preprocess,
)

_BEAT = 2.0  # seconds between updates of times.json


@dataclasses.dataclass(frozen=True)
class Stage:
  """One step of the demo.

  Attributes:
    name: name in times.json.
    title: title for the user.
    output: file or folder in the workdir that exists once the stage is
      complete.
    run: runs or resumes the stage in a workdir.
  """

  name: str
  title: str
  output: str
  run: Callable[[ml_collections.ConfigDict, pathlib.Path], Any]


def demo(config: ml_collections.ConfigDict, directory: str) -> None:
  """Runs the unfinished ones of the four stages in `directory`.

  Args:
    config: configs/demo.py.
    directory: the workdir.

  Raises:
    ValueError: for settings that are invalid, or that differ from those that
      the workdir was begun with.
  """
  limits.check(config, ranges.DEMO)
  limits.check_preprocessing(config.preprocess, 'config.preprocess')
  registry.check(config.pretrain, 'config.pretrain')
  registry.check(config.finetune, 'config.finetune')
  folder = pathlib.Path(directory)
  _begin(config, folder)
  config = _in_workdir(config, folder)
  for number, stage in enumerate(STAGES, 1):
    head = f'[{number}/{len(STAGES)}] {stage.title}'
    spent = _read_json(folder / 'times.json', {}).get(stage.name, {})
    if spent.get('done') and (folder / stage.output).exists():
      print(
        f'{head}: done before, in {demo_verdicts.duration(spent["seconds"])}.',
        flush=True,
      )
      continue
    print(f'{head} ...', flush=True)
    with _timed(folder / 'times.json', stage.name) as entry:
      stage.run(config, folder)
      entry['done'] = True
    print(
      f'{head}: done in {demo_verdicts.duration(entry["seconds"])}.', flush=True
    )
  total = sum(
    entry['seconds'] for entry in _read_json(folder / 'times.json', {}).values()
  )
  print(
    f'All in {demo_verdicts.duration(total)}. Look at {folder / "report.html"}'
  )


def preprocess(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
  """Fetches real clips, renders robots, extracts atomic actions."""
  del folder
  run_preprocess.preprocess(config.preprocess)


def pretrain_model(
  config: ml_collections.ConfigDict, folder: pathlib.Path
) -> None:
  """Runs Algorithm 1 on the atomic actions."""
  pretrain.pretrain(
    config.pretrain,
    folder / 'pretrain',
    base.defaults(config.pretrain),
  )


def finetune(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
  """Runs Algorithm 2 on the robot's task."""
  finetune_work.finetune(config.finetune, str(folder / 'finetune'))


STAGES = (
  Stage('preprocess', 'Videos to atomic actions', 'shards', preprocess),
  Stage('pretrain', 'Pre-training', 'pretrain', pretrain_model),
  Stage('finetune', 'Fine-tuning', 'finetune', finetune),
  Stage('report', 'Report', 'report.html', demo_report.write),
)


def _begin(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
  """Writes demo.json, or checks that it holds the same settings."""
  folder.mkdir(parents=True, exist_ok=True)
  path, new = folder / 'demo.json', json.loads(config.to_json())
  if not path.exists():
    files.write_json(path, new)
  # All settings, even those that runs may change, because complete stages are
  # not run again.
  changed = settings.differences(
    settings.flat_tree(json.loads(path.read_text('utf-8'))),
    settings.flat_tree(new),
    settings.flat(demo_config.get_config()),
  )
  settings.refuse(str(folder), changed, '--workdir', path.name)


def _in_workdir(
  config: ml_collections.ConfigDict, folder: pathlib.Path
) -> ml_collections.ConfigDict:
  """Fills in the folders that connect one stage's output to the next."""
  config = config.copy_and_resolve_references()
  shards = str(folder / 'shards')
  config.preprocess.path = config.preprocess.path or str(folder / 'videos')
  config.preprocess.data.shards_dir = shards
  config.pretrain.data.shards_dir = shards
  config.finetune.init_from = str(folder / 'pretrain')
  return config


def _read_json(path: pathlib.Path, default: Any) -> Any:
  return json.loads(path.read_text('utf-8')) if path.exists() else default


@contextlib.contextmanager
def _timed(path: pathlib.Path, name: str) -> Iterator[dict[str, Any]]:
  """Adds the time spent inside to an entry of times.json, even if killed."""
  times = _read_json(path, {})
  entry = times.setdefault(name, {'seconds': 0.0})
  entry['done'] = False
  before, start = entry['seconds'], time.monotonic()
  over = threading.Event()

  def save():
    entry['seconds'] = round(before + time.monotonic() - start, 1)
    files.write_json(path, times)

  def beat():
    while not over.wait(_BEAT):
      save()

  save()
  thread = threading.Thread(target=beat, daemon=True)
  thread.start()
  try:
    yield entry
  finally:
    over.set()
    thread.join()
    save()


if __name__ == '__main__':
  _CONFIG = config_flags.DEFINE_config_file(
    'config', 'configs/demo.py', 'Config file and variant, FILE:VARIANT.'
  )
  _WORKDIR = flags.DEFINE_string('workdir', 'runs/demo', 'Folder of the demo.')
  launch.run(lambda: demo(_CONFIG.value, _WORKDIR.value))
