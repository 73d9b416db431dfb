"""Tests of the losses: numbers by hand, loops, and who gets gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax import losses


def _normal(*shape):
  rng = np.random.default_rng(list(shape))
  return rng.normal(size=shape).astype(np.float32)


def _numpy_kl(logits_p, logits_q):
  p, q = (
    np.exp(x - np.max(x, -1, keepdims=True)) for x in (logits_p, logits_q)
  )
  p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
  return (p * np.log(p / q)).sum((-1, -2)).mean()


def test_mae_loss_is_a_mean_over_hidden_patches_of_squared_norms():
  recon, patches = _normal(2, 3, 4, 8), _normal(2, 3, 4, 8)[::-1]
  hidden = _normal(2, 3, 4) > 0
  total, count = 0.0, 0
  for b, t, k in zip(*np.nonzero(hidden), strict=True):
    total += sum((recon[b, t, k] - patches[b, t, k]) ** 2)
    count += 1
  loss = losses.mae_loss(recon, patches, hidden)
  np.testing.assert_allclose(loss, total / count, rtol=1e-5)


def test_mae_loss_of_nothing_hidden_is_zero():
  x = _normal(1, 2, 3, 4)
  assert losses.mae_loss(x, -x, np.zeros((1, 2, 3), bool)) == 0.0


def test_image_loss_is_half_a_sum_a_frame():
  recon, image = _normal(2, 3, 4, 5, 3), _normal(3, 2, 4, 5, 3).swapaxes(0, 1)
  frames = [
    0.5 * ((recon[b, t] - image[b, t]) ** 2).sum()
    for b in range(2)
    for t in range(3)
  ]
  np.testing.assert_allclose(
    losses.image_loss(recon, image), np.mean(frames), rtol=1e-5
  )


def test_reward_loss_by_hand():
  loss = losses.reward_loss(jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 1.0]]))
  np.testing.assert_allclose(loss, 0.5 * (4 + 1) / 2)


def test_kl_loss_above_free_nats_is_the_kl():
  post, prior = _normal(2, 3, 2, 4), _normal(2, 3, 4, 2).swapaxes(-1, -2)
  kl = _numpy_kl(post, prior)
  loss, value = losses.kl_loss(post, prior, 0.8, 0.0)
  np.testing.assert_allclose([loss, value], [kl, kl], rtol=1e-5)


def test_kl_loss_balances_the_gradients_of_its_sides():
  post, prior = _normal(2, 3, 2, 4), _normal(2, 3, 4, 2).swapaxes(-1, -2)

  def gradients(balance):
    return jax.grad(
      lambda *args: losses.kl_loss(*args, balance, 0.0)[0], argnums=(0, 1)
    )(post, prior)

  only_post, none = gradients(0.0)
  np.testing.assert_array_equal(none, 0)
  none, only_prior = gradients(1.0)
  np.testing.assert_array_equal(none, 0)
  by_post, by_prior = gradients(0.8)
  np.testing.assert_allclose(by_post, 0.2 * only_post, rtol=1e-4)
  np.testing.assert_allclose(by_prior, 0.8 * only_prior, rtol=1e-4)
  # Cross-entropy's gradient: q - p, over the mean's B T = 6 entries.
  difference = jax.nn.softmax(prior, -1) - jax.nn.softmax(post, -1)
  np.testing.assert_allclose(only_prior, difference / 6, atol=1e-6)


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
  mean = _numpy_kl(post.reshape(-1, 2, 4), prior.reshape(-1, 2, 4))
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


def test_actor_loss_pairs_each_return_with_the_state_before():
  H, N = 4, 3
  ret, entropy = _normal(H, N), _normal(N, H).T
  weight = np.abs(_normal(H, N)) + 0.1
  total = 0.0
  for n in range(N):
    for t in range(1, H):
      total -= weight[t - 1, n] * (ret[t, n] + 0.3 * entropy[t - 1, n])
  loss = losses.actor_loss(ret, entropy, weight, 0.3)
  np.testing.assert_allclose(loss, total / (N * (H - 1)), rtol=1e-5)


def test_critic_loss_weighs_every_state():
  H, N = 4, 3
  value, ret = _normal(H, N), _normal(N, H).T
  weight = np.abs(_normal(H, N)) + 0.1
  total = 0.0
  for n in range(N):
    for t in range(H):
      total += weight[t, n] * 0.5 * (value[t, n] - ret[t, n]) ** 2
  loss, by_return = jax.value_and_grad(losses.critic_loss, 1)(
    value, ret, weight
  )
  np.testing.assert_allclose(loss, total / (N * H), rtol=1e-5)
  np.testing.assert_array_equal(by_return, 0)
