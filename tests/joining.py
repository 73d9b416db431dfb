"""A small program of several processes, for tests/train/multihost_test.py.

Sums its part of a batch in steps like those of training, saves after each and
goes on from what is saved: python joining.py coordinator index workdir steps
"""

import json
import sys

import jax
import numpy as np

from drp_jax.runs import checkpoint, parallel
from experiments import launch

PROCESSES, EXAMPLES = 2, 8


def step(state, batch, key):
  """Adds the mean of what examples weigh, each by its place in the batch."""
  del key
  b = batch.shape[0]
  place = parallel.device_examples(b, parallel.AXIS) + jax.numpy.arange(b)
  mean = parallel.mean((place * batch).mean(), parallel.AXIS)
  return {'sum': state['sum'] + mean, 'step': state['step'] + 1}, {'mean': mean}


def main(coordinator: str, index: int, workdir: str, steps: int) -> None:
  launch.join(coordinator, PROCESSES, index, allowed=True)
  saved = checkpoint.Checkpoints(workdir)
  state = {'sum': jax.numpy.float32(0), 'step': jax.numpy.int32(0)}
  if saved.latest_step() is not None:
    state, _ = saved.restore(state)
  parallel.check_agreement('steps', int(state['step']))
  state = parallel.replicate(state)
  pmapped = parallel.pmap_step(step)
  share = EXAMPLES // PROCESSES
  means = []
  for number in range(int(state['step']), steps):
    batch = number + np.arange(EXAMPLES, dtype=np.float32)
    part = batch[index * share : (index + 1) * share]
    state, metrics = pmapped(state, parallel.shard(part), jax.random.key(0))
    means.append(float(metrics['mean']))
    saved.save(number + 1, state, {})
  saved.close()
  own = parallel.own_folder(workdir)
  own.mkdir(exist_ok=True)
  result = {'means': means, 'sum': float(state['sum'])}
  (own / 'result.json').write_text(json.dumps(result))
  try:  # an error in all processes
    parallel.check_agreement('their places', index)
  except ValueError as error:
    (own / 'error.txt').write_text(str(error))


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
