r"""Fine-tunes on your own environment; here on one of Gymnasium's.

  python -m experiments.custom_env --workdir=runs/reacher \
      --config=configs/base.py:nano

Replace `make_env`. Observations are images [64, 64, 3] of uint8, and actions
lie in [-1, 1]. `info['success']` is logged if it exists. An episode ends after
`config.env.episode_length` steps at the latest.
"""

from typing import Any

import gymnasium
import ml_collections
import numpy as np

from drp_jax.envs import gl
from experiments import finetune_work


def make_env(config: ml_collections.ConfigDict) -> gymnasium.Env:
  """Opens the environment; called in the process of each environment."""
  gl.select_backend()  # before MuJoCo is imported
  env = gymnasium.make(
    config.task, render_mode='rgb_array', width=64, height=64
  )
  env = gymnasium.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
  return gymnasium.wrappers.AddRenderObservation(env)


def finetune(config: ml_collections.ConfigDict, workdir: str) -> Any:
  """Runs or resumes fine-tuning in `workdir`."""
  gl.select_backend()  # once, not in every process
  env = {'suite': 'gymnasium', 'action_repeat': 1}  # for the logs
  # Predicts where episodes terminate. Reacher's never do; yours may.
  behavior = {'continuation': True}
  config.update({'task': 'Reacher-v5', 'env': env, 'behavior': behavior})
  return finetune_work.finetune(config, workdir, make_env)


if __name__ == '__main__':
  finetune_work.run('configs/base.py:nano', finetune)
