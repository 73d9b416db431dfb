"""Counts of operations, by hand."""

import jax
import jax.numpy as jnp

from benchmarks import work


def _flops(function, *shapes):
  arrays = [jnp.zeros(shape) for shape in shapes]
  return work.count(jax.make_jaxpr(function)(*arrays).jaxpr).flops


def test_a_product_and_a_convolution():
  assert _flops(jnp.dot, (3, 4), (4, 5)) == 2 * 3 * 4 * 5

  def convolve(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  shapes = (1, 6, 6, 2), (3, 3, 2, 7)
  assert _flops(convolve, *shapes) == 2 * (4 * 4 * 7) * (3 * 3 * 2)


def test_a_loop_counts_each_turn():
  def loop(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, length=10)[0]

  assert _flops(loop, (3, 4), (4, 4)) == 10 * 2 * 3 * 4 * 4


def test_the_form_for_cpus_is_not_counted():
  def choose(x, w):
    return jax.lax.platform_dependent(
      x, w, cpu=lambda x, w: (x @ w) @ w, default=lambda x, w: x @ w
    )

  assert _flops(choose, (3, 4), (4, 4)) == 2 * 3 * 4 * 4


def test_what_nothing_reads_is_not_counted():
  @jax.custom_vjp
  def product(x, w):
    return x @ w

  def backward(residuals, dy):
    _, vjp = jax.vjp(lambda x, w: x @ w, *residuals)
    return vjp(dy)

  product.defvjp(lambda x, w: (x @ w, (x, w)), backward)
  gradient = jax.grad(lambda x, w: product(x, w).sum(), (0, 1))
  # Both gradients; nothing reads the product itself.
  assert _flops(gradient, (3, 4), (4, 5)) == 2 * 2 * 3 * 4 * 5
