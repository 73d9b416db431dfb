"""Opens and exports what pre-training has learned."""

import json
import pathlib
from typing import Any, NamedTuple, cast

import jax
import ml_collections

from drp_jax import files
from drp_jax.runs import checkpoint, workdir
from drp_jax.systems import contract, definition, registry


class Pretrained(NamedTuple):
  """A pre-trained model, ready to be called.

  Attributes:
    config: that it was trained with, configs/base.py.
    built: its system, with the number of keypoints that it sees.
    variables: params and other collections, what the system's calls take.
  """

  config: ml_collections.ConfigDict
  built: definition.Built
  variables: dict[str, Any]

  @property
  def system(self) -> contract.Pretrains:
    """What the model is; for DRP a `contract.SeesMotion`."""
    return cast(contract.Pretrains, self.built.system)


def load(directory: str | pathlib.Path) -> Pretrained:
  """Reads the newest checkpoint of a pre-training.

  Args:
    directory: a workdir of experiments/run_pretrain.py, or what `export` made
      of it.

  Raises:
    ValueError: if it is none, or is damaged.
  """
  config = workdir.read_config(directory)
  built = registry.build(config, 1, None)
  if built.pretraining is None:
    raise ValueError(f'{str(directory)!r} is no workdir of a pre-training.')
  state = jax.eval_shape(lambda: built.pretraining.init(1.0))
  template = {'params': state.params, 'collections': state.collections}
  found = checkpoint.load_part(directory, template, 'workdir')
  return Pretrained(
    config, built, {'params': found['params'], **found['collections']}
  )


def untrained(model: Pretrained) -> Pretrained:
  """Returns the same networks with fresh parameters, as a control.

  The scale of flow, which belongs to the data, stays.

  Args:
    model: of `load`.
  """
  pretraining = model.built.pretraining
  assert pretraining is not None  # `load` saw to it
  batch = pretraining.example()
  variables = jax.jit(model.system.init)(jax.random.key(0), batch)
  if 'constants' in model.variables:
    variables = {**variables, 'constants': model.variables['constants']}
  return model._replace(variables=variables)


def export(
  directory: str | pathlib.Path, target: str | pathlib.Path
) -> pathlib.Path:
  """Copies a pre-training without what only its training needs.

  What is left, weights, config and what it ran on, serves `load` and
  `config.init_from`, at a third of the size. It names no place of this machine.

  Args:
    directory: a workdir of experiments/run_pretrain.py.
    target: folder that does not hold a checkpoint yet.

  Returns:
    `target`.

  Raises:
    ValueError: as `load`, or if there is a checkpoint in `target`.
  """
  source, target = pathlib.Path(directory), pathlib.Path(target)
  model = load(source)
  old, new = checkpoint.Checkpoints(source), checkpoint.Checkpoints(target)
  if new.latest_step() is not None:
    raise ValueError(f'{str(target)!r} holds a checkpoint already.')
  variables = dict(model.variables)
  state = {'params': variables.pop('params'), 'collections': variables}
  step = old.latest_step()
  assert step is not None  # `load` found it
  new.save(step, state, {})
  old.close()
  new.close()
  for path in target.rglob('commit_success.txt'):
    path.write_text('Written.\n')  # Orbax names the folder in it
  config = json.loads(model.config.to_json())
  config['data']['shards_dir'] = ''  # a place of the machine it was trained on
  files.write_json(target / 'config.json', config)
  run = json.loads((source / 'run.json').read_text('utf-8'))
  files.write_json(target / 'run.json', run)
  return target
