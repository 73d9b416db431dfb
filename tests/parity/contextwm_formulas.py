"""Formulas of the official ContextWM code beside ours, on given numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from tests.parity import contextwm_ours as ours
from tests.parity import theirs

# The first actions are sampled at both ends of the unit interval. In float32
# the gradients of such samples are rounding, to some percent.
_ENDS = (1e-6,), (1.0 - 1e-6,)
_TRUNCATED = 'mean', 'std', 'uniform', 'taken'  # of the truncated normal


def case(original) -> dict[str, Any]:
  """KL, returns, distributions, bonus and erasing on numbers of their own.

  Args:
    original: the official IPV, `compare_contextwm.Original`.

  Returns:
    `inputs` and `rows`, in float32.
  """
  from wmlib import core  # of the checkout
  from wmlib.nets.encoder import ctx_resnet

  config, sizes = original.config, original.sizes
  A, rng = sizes.actions, sizes.random(1)
  latent = config.rssm.groups, config.rssm.classes
  H, N, M = config.behavior.horizon, 6, 64
  projection = original.inputs['projection']

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  uniform = rng.uniform(size=(M, A)).astype(np.float32)
  uniform[: len(_ENDS)] = _ENDS
  erase = rng.uniform(size=(16, 6)).astype(np.float32)
  inputs = {
    'post_logits': 2.0 * normal(3, 4, *latent),
    'prior_logits': 2.0 * normal(3, 4, *latent),
    'imagined_reward': normal(H, N),
    'imagined_value': normal(H + 1, N),
    'mean': np.tanh(1.5 * normal(M, A)),
    'std': rng.uniform(0.1, 2.1, (M, A)).astype(np.float32),
    'uniform': uniform,
    'taken': rng.uniform(-1, 1, uniform.shape).astype(np.float32),
    'projection': projection,
    'bonus_feat': normal(3, sizes.sequences, 8, len(projection)),
    'erased_image': np.full((16, 64, 64, 1), 0.3, np.float32),
    'erase': erase,
  }
  x = theirs.tensors(inputs)
  wm, rows = original.tuned.wm, {'KL with balance': {}}

  for free in (0.0, 100.0):
    post, prior = (
      x[f'{name}_logits'].clone().requires_grad_() for name in ('post', 'prior')
    )
    loss, _ = wm.rssm.kl_loss(
      {'logit': post},
      {'logit': prior},
      forward=False,
      balance=0.8,
      free=free,
      free_avg=True,
    )
    loss.backward()
    rows['KL with balance'][f'free {free:g}'] = {
      'loss': theirs.to_numpy(loss),
      'by post': theirs.to_numpy(post.grad),
      'by prior': theirs.to_numpy(prior.grad),
    }

  found = core.lambda_return(
    x['imagined_reward'],
    x['imagined_value'][:-1],
    config.behavior.discount * torch.ones(H, N),
    bootstrap=x['imagined_value'][-1],
    lambda_=config.behavior.lam,
    axis=0,
  )
  rows['lambda-returns'] = {'returns': theirs.to_numpy(found)}

  rows |= _truncated_normal(x)

  bonus = rows['intrinsic bonus, three batches'] = {}
  for i, feat in enumerate(x['bonus_feat']):
    zeros = torch.zeros(feat.shape[:2])
    data, _, _ = wm.intr_bonus.compute_bonus({'reward': zeros}, feat)
    bonus[f'batch {i}'] = theirs.to_numpy(data['reward'])

  chance, area, wide, aspect, top, left = x['erase'].unbind(1)
  hit = chance < 0.5
  image = x['erased_image'].movedim(-1, 1)
  numbers = area, aspect, aspect, 1.0 - wide, left, top
  with theirs.fed(rand=[y[hit] for y in numbers], bernoulli=[hit.float()]):
    erased = ctx_resnet.get_augmentation('erasing', image.shape)(image)
  rows['random erasing'] = {'image': theirs.to_channels_last(erased)}
  return {'inputs': inputs, 'rows': rows}


def _truncated_normal(x: dict[str, torch.Tensor]) -> ours.Rows:
  """Samples, log-probabilities and entropies, with their gradients."""
  from wmlib.core import dists  # of the checkout

  def truncated(function: Callable):
    mean, std = (x[name].clone().requires_grad_() for name in ('mean', 'std'))
    normal = dists.TruncNormalDist(mean, std, -1, 1)
    value = function(dists.Independent(normal, 1))
    value.sum().backward()
    return {
      'value': theirs.to_numpy(value),
      'by mean': theirs.to_numpy(mean.grad),
      'by std': theirs.to_numpy(std.grad),
    }

  with theirs.fed(uniform=[x['uniform']]):
    samples = truncated(lambda d: d.sample())
  return {
    'truncated normal: samples': samples,
    'truncated normal: log-probabilities': truncated(
      lambda d: d.log_prob(x['taken'])
    ),
    'truncated normal: entropies': truncated(lambda d: d.entropy()),
  }


def differences(
  sizes: ours.Sizes, case: dict[str, Any]
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
  """Yields rows of the table: name, [(array, difference)].

  Of the truncated normal, both ends are compared in float64, all else in
  float32.
  """
  inputs, n = case['inputs'], len(_ENDS)
  found = ours.formulas(inputs, sizes)
  assert found.keys() == case['rows'].keys(), found.keys() ^ case['rows'].keys()
  for row, expected in case['rows'].items():
    pair = found[row], expected
    if row.startswith('truncated normal'):
      pair = [{k: np.asarray(x)[n:] for k, x in y.items()} for y in pair]
    yield f'{"formulas":22} {row}', list(ours.differences(*pair))

  ends = {name: inputs[name][:n] for name in _TRUNCATED}
  with theirs.double(torch.nn.Module()):
    expected = _truncated_normal(theirs.tensors(ends))
  with ours.double():
    found = ours.truncated_normal(ours.as_double(ends))
  for row, arrays in expected.items():
    pairs = list(ours.differences(found[row], arrays))
    yield f'{"both ends":22} {row}', pairs
