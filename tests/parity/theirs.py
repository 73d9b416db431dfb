"""What the comparisons do to official code in torch, and read from it."""

import contextlib
from unittest import mock

import numpy as np
import torch

from drp_jax.convert import contextwm
from tests.parity import arguments
from tests.parity import contextwm_ours as ours

Arrays = dict[str, np.ndarray]


@contextlib.contextmanager
def fed(
  multinomial=(),
  rand=(),
  uniform=(),
  dropout=(),
  bernoulli=(),
  choice=(),
  normal=(),
  order=(),
):
  """Makes the random functions of torch and NumPy hand out given numbers.

  All have to be taken.

  Args:
    multinomial: [..., groups, classes] Gumbel noise of each call, or None where
      it may draw.
    rand: what `torch.rand` returns for these shapes.
    uniform: what `Tensor.uniform_` writes.
    dropout: what is kept by each call.
    bernoulli: what `torch.bernoulli` returns.
    choice: what `numpy.random.choice` returns.
    normal: noise of samples of normal distributions.
    order: what `torch.randperm` returns.
  """
  left = dict(
    multinomial=list(multinomial),
    rand=list(rand),
    uniform=list(uniform),
    dropout=list(dropout),
    bernoulli=list(bernoulli),
    choice=list(choice),
    normal=list(normal),
    order=list(order),
  )
  original_multinomial, original_rand = torch.multinomial, torch.rand

  def fed_multinomial(probs, num_samples, replacement):
    gumbel = left['multinomial'].pop(0)
    if gumbel is None:
      return original_multinomial(probs, num_samples, replacement)
    scores = probs.log() + gumbel.reshape(probs.shape)
    return scores.argmax(-1, keepdim=True)

  def fed_rand(*shape, **kwargs):
    flat = shape[0] if isinstance(shape[0], torch.Size | tuple) else shape
    if left['rand'] and left['rand'][0].shape == torch.Size(flat):
      return left['rand'].pop(0)
    return original_rand(*shape, **kwargs)

  def fed_uniform(tensor, low, high):
    del low, high
    return tensor.copy_(left['uniform'].pop(0).reshape(tensor.shape))

  def fed_dropout(x, p, training=True, inplace=False):
    del inplace
    if not training:
      return x
    return x * left['dropout'].pop(0).reshape(x.shape) / (1.0 - p)

  def fed_bernoulli(probs):
    return left['bernoulli'].pop(0).reshape(probs.shape)

  def fed_choice(*args):
    del args
    return left['choice'].pop(0)

  def fed_normal(shape, dtype, device):
    return left['normal'].pop(0).reshape(shape).to(device, dtype)

  def fed_order(count, device=None):
    del device
    order = left['order'].pop(0)
    assert order.numel() == count
    return order

  patch = mock.patch.object
  with (
    patch(torch, 'multinomial', fed_multinomial),
    patch(torch, 'rand', fed_rand),
    patch(torch.Tensor, 'uniform_', fed_uniform),
    patch(torch.nn.functional, 'dropout', fed_dropout),
    patch(torch, 'bernoulli', fed_bernoulli),
    patch(np.random, 'choice', fed_choice),
    patch(torch.distributions.normal, '_standard_normal', fed_normal),
    patch(torch, 'randperm', fed_order),
  ):
    yield
  assert not any(left.values()), {name: len(x) for name, x in left.items()}


@contextlib.contextmanager
def double(agent: torch.nn.Module):
  """Computes in float64, also where the original asks for float32."""
  with mock.patch.object(torch.Tensor, 'float', torch.Tensor.double):
    torch.set_default_dtype(torch.float64)
    agent.double()
    try:
      yield
    finally:
      torch.set_default_dtype(torch.float32)
  agent.float()


def tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
  """Tensors of arrays; those of real numbers are of the default type."""
  found = {name: torch.from_numpy(x) for name, x in arrays.items()}
  dtype = torch.get_default_dtype()
  return {
    name: x.to(dtype) if x.is_floating_point() else x
    for name, x in found.items()
  }


def randomize(agent: torch.nn.Module, sizes: arguments.Sizes) -> None:
  """Moves all that a fresh network leaves at 0 or 1, as training would."""
  rng = sizes.random(3)
  for name, value in sorted(agent.state_dict().items()):
    if name.startswith('_expl_behavior.') or not value.is_floating_point():
      continue
    noise = torch.from_numpy(np.asarray(rng.normal(size=value.shape))).float()
    if name.endswith(('running_var', 'weight')) and value.ndim == 1:
      value.copy_(0.7 + 0.2 * noise.abs())
    elif name.endswith(('bias', 'running_mean')):
      value.copy_(0.1 * noise)
    elif name.endswith('pos_emb'):
      value.copy_(0.3 * noise)
    elif name.endswith('projection_matrix'):
      value.copy_(noise / value.shape[-1])
    elif name.endswith('weight'):
      gain = 4.0 if '_dist' in name else 1.0  # states that are not all alike
      value.copy_(gain * noise / np.sqrt(value[0].numel()))


def learned_arrays(agent: torch.nn.Module) -> tuple[Arrays, Arrays]:
  """Weights that learn and statistics; and the slow critic's."""
  slow, weights = '_task_behavior._target_critic.', {}
  skipped = '_expl_behavior.', 'wm.intr_bonus.', '_task_behavior.rewnorm.'
  for name, value in agent.state_dict().items():
    if not name.startswith(skipped):
      weights[name] = to_numpy(value)
  slow_critic = {
    name.replace(slow, '_task_behavior.critic.'): weights.pop(name)
    for name in list(weights)
    if name.startswith(slow)
  }
  return weights, slow_critic


def gradients_of(agent: torch.nn.Module) -> Arrays:
  return {
    name: to_numpy(parameter.grad)
    for name, parameter in agent.named_parameters()
    if parameter.grad is not None
  }


def moves(agent, gradients, updates, step) -> Arrays:
  """Parameters after some updates less those before."""
  parameters = dict(agent.double().named_parameters())  # moves are small
  start = {name: parameters[name].detach().clone() for name in gradients}
  for i in range(updates):
    factor = ours.GRADIENT_FACTORS[i % len(ours.GRADIENT_FACTORS)]
    for name, gradient in gradients.items():
      parameters[name].grad = torch.from_numpy(factor * gradient).double()
    step(torch.zeros(()))
  moves = {name: parameters[name] - start[name] for name in gradients}
  return {name: to_numpy(move.float()) for name, move in moves.items()}


def to_numpy(x: torch.Tensor) -> np.ndarray:
  found = np.array(x.detach().numpy())
  return found.astype(np.float32) if x.is_floating_point() else found


def to_channels_last(x: torch.Tensor) -> np.ndarray:
  return to_numpy(x.movedim(-3, -1))


def pixels(x: torch.Tensor) -> np.ndarray:
  return to_channels_last(x)[ours.PIXELS]


def embedding(x: torch.Tensor, side: int) -> np.ndarray:
  """Their embedding in the order of ours."""
  flat = np.moveaxis(to_numpy(x), -1, 0)
  return np.moveaxis(contextwm.channels_last(flat, side), 0, -1)
