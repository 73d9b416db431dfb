"""Tests of distributions against closed forms, SciPy and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from drp_jax.ops import distributions

_MEAN_STD = [(0.0, 0.1), (0.3, 0.5), (-0.95, 0.3), (0.99, 2.1), (0.5, 1.1)]


def _truncated(mean: float, std: float):
  low, high = (-1 - mean) / std, (1 - mean) / std
  return scipy.stats.truncnorm(low, high, mean, std)


def test_kl_of_known_categoricals():
  p = jnp.log(jnp.array([[0.75, 0.25], [0.1, 0.9]]))
  q = jnp.log(jnp.array([[0.5, 0.5], [0.1, 0.9]]))
  expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)  # groups are summed
  kl = distributions.categorical_kl(p + 3.0, q - 1.0)  # logits may be shifted
  np.testing.assert_allclose(kl, expected, rtol=1e-5)
  back = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
  np.testing.assert_allclose(
    distributions.categorical_kl(q, p), back, rtol=1e-5
  )


def test_entropy_of_known_categoricals():
  logits = jnp.stack([jnp.zeros(4), jnp.array([50.0, 0.0, 0.0, 0.0])])
  entropy = distributions.categorical_entropy(logits)
  np.testing.assert_allclose(entropy, np.log(4), rtol=1e-6)


def test_categorical_samples_have_their_probabilities():
  probs = np.array([0.1, 0.2, 0.7])
  N = 20_000
  logits = jnp.broadcast_to(jnp.log(probs), (N, 1, 3))
  gumbel = jax.random.gumbel(jax.random.key(0), (N, 1, 3))
  sample = distributions.categorical_sample(logits, gumbel)
  np.testing.assert_allclose(sample.sum(-1), 1.0, atol=1e-6)
  sigma = np.sqrt(probs * (1 - probs) / N)
  assert (np.abs(sample.mean((0, 1)) - probs) < 4 * sigma).all()


def test_categorical_without_noise_is_the_mode():
  mode = distributions.categorical_sample(jnp.array([[1.0, 3.0, 2.0]]), None)
  np.testing.assert_allclose(mode, [[0, 1, 0]], atol=1e-6)


def test_categorical_gradient_is_that_of_the_probabilities():
  rng = np.random.default_rng(0)
  logits, weight, gumbel = rng.normal(size=(3, 2, 4)).astype(np.float32)
  straight = jax.grad(
    lambda x: (weight * distributions.categorical_sample(x, gumbel)).sum()
  )(logits)
  probs = jax.grad(lambda x: (weight * jax.nn.softmax(x, -1)).sum())(logits)
  np.testing.assert_allclose(straight, probs, rtol=1e-5)


@pytest.mark.parametrize(('mean', 'std'), _MEAN_STD)
def test_truncated_normal_density_and_entropy(mean, std):
  x = np.linspace(-1, 1, 4001)
  log_prob = distributions.truncated_normal_log_prob(
    jnp.full((4001, 1), mean), jnp.full((4001, 1), std), x[:, None]
  )
  np.testing.assert_allclose(
    log_prob, _truncated(mean, std).logpdf(x), atol=2e-4
  )
  p = np.exp(np.asarray(log_prob, np.float64))
  np.testing.assert_allclose(np.trapezoid(p, x), 1.0, atol=1e-4)
  entropy = distributions.truncated_normal_entropy(
    jnp.array([mean]), jnp.array([std])
  )
  expected = -np.trapezoid(p * np.asarray(log_prob), x)
  np.testing.assert_allclose(entropy, expected, atol=1e-4)


def test_truncated_normal_sums_over_actions():
  mean, std, x = jnp.array([[0.1, -0.4], [0.5, 0.9], [0.3, 0.2]])
  for total, one in (
    (
      distributions.truncated_normal_log_prob(mean, std, x),
      distributions.truncated_normal_log_prob(
        mean[:, None], std[:, None], x[:, None]
      ),
    ),
    (
      distributions.truncated_normal_entropy(mean, std),
      distributions.truncated_normal_entropy(mean[:, None], std[:, None]),
    ),
  ):
    assert total.shape == ()
    np.testing.assert_allclose(total, one.sum(), rtol=1e-6)


@pytest.mark.parametrize(('mean', 'std'), _MEAN_STD)
def test_truncated_normal_sample_inverts_the_cdf(mean, std):
  u = np.linspace(0.01, 0.99, 99).astype(np.float32)
  sample = distributions.truncated_normal_sample(
    jnp.full(99, mean), jnp.full(99, std), u
  )
  np.testing.assert_allclose(sample, _truncated(mean, std).ppf(u), atol=2e-5)


@pytest.mark.parametrize('u', [0.05, 0.5, 0.9])
@pytest.mark.parametrize(('mean', 'std'), _MEAN_STD)
def test_truncated_normal_sample_gradient_by_finite_differences(mean, std, u):
  by_mean, by_std = jax.grad(
    distributions.truncated_normal_sample, argnums=(0, 1)
  )(mean, std, u)
  h = 1e-5

  def difference(mean_step, std_step):
    up = _truncated(mean + mean_step, std + std_step).ppf(u)
    down = _truncated(mean - mean_step, std - std_step).ppf(u)
    return (up - down) / (2 * h)

  np.testing.assert_allclose(by_mean, difference(h, 0), atol=1e-3)
  np.testing.assert_allclose(by_std, difference(0, h), atol=1e-3)


def test_truncated_normal_ends_are_open_and_pass_gradients():
  u = jnp.array([0.0, 1.0 - 2.0**-24])
  args = jnp.array([-0.999, 0.999]), jnp.full(2, 0.1), u
  sample = distributions.truncated_normal_sample(*args)
  assert (np.abs(sample) < 1.0).all()
  gradient = jax.grad(
    lambda mean: distributions.truncated_normal_sample(mean, *args[1:]).sum()
  )(args[0])
  assert np.isfinite(gradient).all()


def test_kl_of_known_normals():
  """Summed over the last axis; as an integral, and against one number."""
  mean_p, std_p = jnp.array([0.3, -1.0]), jnp.array([0.5, 2.0])
  mean_q, std_q = jnp.array([-0.2, 0.0]), jnp.array([1.5, 1.0])
  expected = 0.0
  for numbers in zip(mean_p, std_p, mean_q, std_q, strict=True):
    m, s, n, t = map(float, numbers)
    x = np.linspace(m - 12 * s, m + 12 * s, 20_001)
    p, q = scipy.stats.norm(m, s), scipy.stats.norm(n, t)
    density = p.pdf(x) * (p.logpdf(x) - q.logpdf(x))
    expected += scipy.integrate.trapezoid(density, x)
  kl = distributions.normal_kl(mean_p, std_p, mean_q, std_q)
  np.testing.assert_allclose(kl, expected, rtol=1e-5)
  one = distributions.normal_kl(mean_p, std_p, 0.0, 1.5)
  both = distributions.normal_kl(mean_p, std_p, jnp.zeros(2), jnp.full(2, 1.5))
  np.testing.assert_allclose(one, both, rtol=1e-6)


def test_uniform_share_of_a_categorical():
  logits = np.array([[0.0, 0.0], [50.0, -50.0]], np.float32)
  found = np.exp(distributions.mix_uniform(logits, 0.2))
  np.testing.assert_allclose(found, [[0.5, 0.5], [0.9, 0.1]], rtol=1e-5)


def test_normal_density_and_entropy_by_hand():
  """exp(-1/2) / sqrt(2 pi) / 2 at one deviation; ln(std sqrt(2 pi e))."""
  mean, std = np.array([[1.0, 0.0]]), np.array([[2.0, 1.0]])
  found = distributions.normal_log_prob(mean, std, np.array([[3.0, 0.0]]))
  unit = 1.0 / np.sqrt(2.0 * np.pi)
  expected = np.log(np.exp(-0.5) * unit / 2.0) + np.log(unit)
  np.testing.assert_allclose(found, [expected], rtol=1e-5)
  expected = np.log(2.0) + 2.0 * 0.5 * np.log(2.0 * np.pi * np.e)
  np.testing.assert_allclose(
    distributions.normal_entropy(std), [expected], rtol=1e-5
  )
