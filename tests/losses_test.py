"""Tests of the losses at their edges; their numbers: equations_test.py."""

import jax
import numpy as np
import paper_in_numpy
import pytest

from drp_jax import losses


def _normal(*shape):
  rng = np.random.default_rng(list(shape))
  return rng.normal(size=shape).astype(np.float32)


def test_mae_loss_of_nothing_hidden_is_zero():
  x = _normal(1, 2, 3, 4)
  assert losses.mae_loss(x, -x, np.zeros((1, 2, 3), bool)) == 0.0


def test_kl_loss_below_free_nats_is_constant():
  post, prior = _normal(2, 3, 2, 4), _normal(2, 3, 4, 2).swapaxes(-1, -2)
  (loss, value), gradient = jax.value_and_grad(
    lambda *args: losses.kl_loss(*args, 0.8, 50.0), has_aux=True
  )(post, prior)
  np.testing.assert_allclose(loss, 50.0, rtol=1e-6)
  assert value < 50.0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('above', [True, False])
def test_free_nats_clamp_the_mean_over_devices(above):
  """Two devices, one of them with the same post and prior."""
  post = np.stack([_normal(1, 3, 2, 4), np.zeros((1, 3, 2, 4), np.float32)])
  prior = np.zeros_like(post)
  steps = (x.reshape(-1, 2, 4) for x in (post, prior))
  mean = np.mean(list(map(paper_in_numpy.kl, *steps)))
  free = float(mean) * (0.9 if above else 1.1)

  def one_device(post, prior):
    return losses.kl_loss(post, prior, 0.8, free)[0]

  def shares(post, prior):
    return losses.kl_loss(post, prior, 0.8, free, 'batch')[0]

  whole = post.reshape(2, 3, 2, 4)
  loss, gradient = jax.value_and_grad(one_device)(
    whole, prior.reshape(whole.shape)
  )
  split_loss, split_gradient = jax.pmap(
    jax.value_and_grad(shares), 'batch', devices=jax.devices()[:2]
  )(post, prior)
  np.testing.assert_allclose(split_loss, loss, rtol=1e-6)
  assert bool(np.any(gradient != 0)) == above
  # A step averages over devices: each holds twice its part of the mean's.
  np.testing.assert_allclose(
    split_gradient.reshape(whole.shape) / 2, gradient, rtol=1e-5, atol=1e-8
  )


def test_mae_loss_counts_the_hidden_of_all_devices():
  """Segments of several episodes hide different numbers of tokens."""
  recon, patches = _normal(2, 3, 4, 5), np.zeros((2, 3, 4, 5), np.float32)
  hidden = np.zeros((2, 3, 4), bool)
  hidden[0, 1:], hidden[1, 1, 0] = True, True
  whole = losses.mae_loss(recon, patches, hidden)
  shares = jax.vmap(
    lambda *x: losses.mae_loss(*x, axis_name='i'), axis_name='i'
  )(recon[:, None], patches[:, None], hidden[:, None])
  np.testing.assert_allclose(shares.mean(), whole, rtol=1e-6)


def test_image_loss_of_weighted_frames():
  recon, image = _normal(1, 2, 4, 4, 3), np.zeros((1, 2, 4, 4, 3), np.float32)
  plain = losses.image_loss(recon, image)
  assert losses.image_loss(recon, image, np.ones((1, 2))) == plain
  np.testing.assert_allclose(
    losses.image_loss(recon, image, np.array([[2.0, 0.0]])),
    losses.image_loss(recon[:, :1], image[:, :1]),
    rtol=1e-6,
  )


def test_continuation_loss_by_hand():
  """Of p = 1/2: ln 2 whatever the target; of a sure p, the target's share."""
  terminal = np.array([[False, True]])
  loss = losses.continuation_loss(np.zeros((1, 2)), terminal, 0.9)
  np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
  logit = np.array([[np.log(3.0), -np.log(3.0)]])  # p = 3/4 and 1/4
  loss = losses.continuation_loss(logit, terminal, 0.9)
  goes_on = -(0.9 * np.log(0.75) + 0.1 * np.log(0.25))
  np.testing.assert_allclose(loss, (goes_on - np.log(0.75)) / 2, rtol=1e-6)


def test_continuation_loss_is_least_where_the_discount_is_predicted():
  terminal = np.zeros((1, 1), bool)
  slope = jax.grad(losses.continuation_loss)
  logit = np.log(0.99 / 0.01)
  at = slope(np.full((1, 1), logit, np.float32), terminal, 0.99)
  below = slope(np.full((1, 1), logit - 1, np.float32), terminal, 0.99)
  np.testing.assert_allclose(at, 0.0, atol=1e-6)
  assert below < 0
