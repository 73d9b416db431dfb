"""Fine-tuning on Meta-World in debug size, by the function of the command."""

import jax
import numpy as np
import pytest

from configs import finetune_metaworld
from drp_jax.runs import logger
from drp_jax.systems import registry
from drp_jax.train import finetune
from experiments import finetune_work

pytestmark = pytest.mark.slow  # what a step is made of is compiled anew


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """Final state and workdir of a run."""
  workdir = tmp_path_factory.mktemp('metaworld')
  config = finetune_metaworld.get_config('debug')
  config.task = 'drawer-open'
  return finetune_work.finetune(config, str(workdir)), workdir


def test_a_run_ends_evaluated(finished):
  state, workdir = finished
  assert int(state.step) == 5  # one at first, then at steps 30, 40, 50, 60
  lines = logger.read_metrics(workdir)
  evaluated = [line for line in lines if 'eval/return' in line]
  assert evaluated[-1]['step'] == 60
  assert evaluated[-1]['eval/return'] > 0
  assert evaluated[-1]['eval/success'] == 0
  # The actions are not repeated.
  assert [line['env_step'] for line in lines if 'env_step' in line][-1] == 60
  frames = np.load(workdir / finetune.EPISODE_FILE)
  assert frames.shape == (21, 64, 64, 3) and frames.std() > 0


def test_the_encoder_waits(finished):
  """Its group is frozen for 100 updates, what is new is not."""
  state, _ = finished
  config = finetune_metaworld.get_config('debug')
  fresh = jax.device_get(
    registry.build(config, 4, None).finetuning.init().params
  )
  state = jax.device_get(state.params)

  def moved(name):
    changes = jax.tree.map(
      lambda x, y: (x != y).any(), state[name], fresh[name]
    )
    return any(jax.tree.leaves(changes))

  assert not moved('image_encoder') and not moved('context_encoder')
  assert moved('action_dynamics') and moved('actor')
