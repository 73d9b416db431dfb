"""Slow: that training learns, not only that it runs."""

import pytest

from configs import pretrain as pretrain_config
from drp_jax.train import logger, pretrain


@pytest.mark.slow
def test_masked_motion_is_predicted_better_than_by_any_constant(
  real_shards, tmp_path
):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = str(real_shards)
  config.optim.lr = 3e-3
  config.pretrain.num_steps = 300
  config.pretrain.log_every = 300
  config.pretrain.eval_every = 300
  config.pretrain.checkpoint_every = 300
  pretrain.pretrain(config, tmp_path)
  line = [x for x in logger.read_metrics(tmp_path) if 'held_out/mae' in x][-1]
  constant = min(
    line['held_out/mae_zero_flow'], line['held_out/mae_mean_patch']
  )
  assert line['held_out/mae'] < 0.7 * constant
