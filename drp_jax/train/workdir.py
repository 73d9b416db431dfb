"""What a run writes into its workdir before the first step."""

import json
import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any

import jax
import ml_collections


def begin(workdir: str | pathlib.Path, config: ml_collections.ConfigDict):
  """Records the resolved config and what the run runs on, atomically.

  Writes `config.json` and `run.json` (commit, versions, devices).
  """
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  write_json(folder / 'config.json', json.loads(config.to_json()))
  write_json(folder / 'run.json', describe())


def describe() -> dict[str, Any]:
  """Commit, versions and hardware, for results."""
  root = pathlib.Path(__file__).parents[2]
  commit = 'unknown'
  if (root / '.git').exists() and shutil.which('git'):
    git = subprocess.run(
      ['git', 'describe', '--always', '--dirty'],
      cwd=root,
      capture_output=True,
      text=True,
      check=False,
    )
    commit = git.stdout.strip() or commit
  return {
    'commit': commit,
    'jax': jax.__version__,
    'python': platform.python_version(),
    'platform': jax.default_backend(),
    'devices': jax.device_count(),
    'cpu_cores': os.cpu_count(),
    'machine': platform.machine(),
  }


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON so that a reader sees the old file or the whole new one."""
  partial = path.with_name(f'.{path.name}.tmp')
  partial.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
  os.replace(partial, path)
