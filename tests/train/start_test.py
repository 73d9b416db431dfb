"""Tests of what a new process compiles before its first step."""

import jax
import pytest

from configs import finetune_dmcr
from configs import pretrain as pretrain_config
from drp_jax.systems import registry


def _pretraining():
  config = pretrain_config.get_config('debug')
  return lambda: registry.build(config, 1, None).pretraining.init(1.0)


def _finetuning():
  config = finetune_dmcr.get_config('debug')
  return registry.build(config, 2, None).finetuning.init


@pytest.mark.parametrize('prepare', [_pretraining, _finetuning])
def test_a_state_is_made_by_one_program(prepare, caplog):
  """Not by one for each shape of an optimizer's zeros, dozens of them."""
  make = prepare()
  with jax.log_compiles(), caplog.at_level('WARNING'):
    state = make()
  compiled = [
    record.getMessage()
    for record in caplog.records
    if record.getMessage().startswith('Compiling')
  ]
  assert len(jax.tree.leaves(state)) > 100
  assert sum('jit(create)' in line for line in compiled) == 1
  assert len(compiled) < 10, compiled  # keys and numbers beside it


@pytest.mark.parametrize('prepare', [_pretraining, _finetuning])
def test_a_state_has_no_buffer_twice(prepare):
  """A step donates them one by one."""
  leaves = jax.tree.leaves(prepare()())
  places = [
    x.unsafe_buffer_pointer()
    for x in leaves
    if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  ]
  assert len(set(places)) == len(leaves)
