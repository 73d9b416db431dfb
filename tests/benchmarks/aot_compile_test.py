"""What compiling ahead counts, by hand; no compiler for TPUs is needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import aot_compile, steps
from benchmarks import work as work_lib
from drp_jax.runs import parallel


def _work(function, *args):
  return work_lib.count(jax.make_jaxpr(function)(*args).jaxpr)


def test_a_matrix_product_is_two_operations_a_term():
  work = _work(lambda a, b: a @ b, np.zeros((3, 5)), np.zeros((5, 7)))
  assert work == work_lib.Work(2 * 3 * 5 * 7, 0)


def _convolve(x, kernel, stride=1):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((1, 1), (1, 1)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@pytest.mark.parametrize('stride', [1, 2])
def test_a_convolution_and_its_gradients_are_three_of_it(stride):
  """Zeros between the pixels of a gradient with a stride are not counted."""
  x, kernel = np.zeros((2, 8, 8, 3)), np.zeros((3, 3, 3, 5))
  forward = 2 * (2 * (8 // stride) ** 2 * 5) * (3 * 3 * 3)
  assert _work(lambda *a: _convolve(*a, stride), x, kernel).flops == forward
  loss = lambda *a: _convolve(*a, stride).sum()  # noqa: E731
  gradients = jax.value_and_grad(loss, (0, 1))
  backward = _work(gradients, x, kernel).flops - forward
  assert backward == 2 * forward


def test_what_nothing_reads_is_not_counted():
  @jax.custom_vjp
  def product(x, w):
    return x @ w

  def backward(residuals, dy):
    _, vjp = jax.vjp(lambda x, w: x @ w, *residuals)
    return vjp(dy)

  product.defvjp(lambda x, w: (x @ w, (x, w)), backward)
  loss = lambda x, w: product(x, w).sum()  # noqa: E731
  gradients = jax.value_and_grad(loss, (0, 1))
  work = _work(gradients, np.zeros((3, 4)), np.zeros((4, 5)))
  # Forward and both gradients; not the product that `jax.vjp` traces.
  assert work.flops == 3 * 2 * 3 * 4 * 5


def test_of_forms_for_platforms_that_of_accelerators_counts():
  def function(x, w):
    return jax.lax.platform_dependent(
      x, w, cpu=lambda x, w: (x @ w) @ w, default=lambda x, w: x @ w
    )

  work = _work(function, np.zeros((3, 5)), np.zeros((5, 5)))
  assert work.flops == 2 * 3 * 5 * 5


def test_loops_count_as_often_as_they_turn():
  def function(w, start):
    step = lambda x, _: (x @ w, None)  # noqa: E731
    return jax.lax.scan(step, start, None, length=6)[0]

  w, start = np.zeros((4, 4), np.float32), np.zeros((2, 4), np.float32)
  work = _work(function, w, start)
  assert work.flops == 6 * 2 * 2 * 4 * 4
  # Five more turns read w, and read and write the state.
  assert work.loop_bytes == 5 * (w.nbytes + 2 * start.nbytes)
  nested = _work(jax.jit(jax.checkpoint(function)), w, start)
  assert nested == work


def test_collectives_of_a_compiled_program():
  """A mean of 40 numbers and a scalar, in one exchange or in two."""

  def step(state, batch, key):
    del key
    mean, total = parallel.mean((batch.mean(0), batch.sum()), parallel.AXIS)
    return state + mean, total

  compiled = (
    parallel.pmap_step(step)
    .lower(jnp.zeros(40), parallel.shard(np.zeros((8, 40))), jax.random.key(0))
    .compile()
  )
  counts, sent = aot_compile.collectives(compiled.as_text())
  assert counts.keys() == sent.keys() == {'all-reduce'}
  assert sent['all-reduce'] == 4 * 41


def test_halves_and_layouts_of_a_tpus_collectives():
  text = """
  %ar = (f32[8,2]{1,0:T(8,128)}, f32[]) all-reduce-start(%a, %b), channel_id=1
  %done = (f32[8,2]{1,0:T(8,128)}, f32[]) all-reduce-done(%ar)
  %ag = bf16[16,128]{1,0:T(8,128)(2,1)} all-gather(%c), dimensions={0}
  %long = (f32[3]{0}, /*index=1*/f32[2]{0}) all-reduce(%d, %e), channel_id=2
  %f = f32[4]{0} fusion(%done, %all-reduce.3), calls=%x
  """
  counts, sent = aot_compile.collectives(text)
  assert counts == {'all-reduce': 2, 'all-gather': 1}
  assert sent == {'all-reduce': 4 * (17 + 5), 'all-gather': 2 * 16 * 128}


def _row(**changes):
  row = dict(
    dtype='bfloat16',
    batch_size=16,
    examples=1,
    steps=3600,
    parameters=1e6,
    flops=197e12,
    loop_bytes=0.0,
    xla_bytes=40e6 + 819e9 / 2,
    sent_bytes={'all-reduce': 1e9},
    state_bytes=1e9,
    step_bytes=2e9,
  )
  return row | changes


def test_estimate_of_the_chips_that_were_compiled_for():
  found = aot_compile.estimate(_row(), aot_compile.V5E, 16)
  assert found['examples'] == 1 and found['bound'] == 'arithmetic'
  np.testing.assert_allclose(found['arithmetic'], 1000)
  np.testing.assert_allclose(found['memory'], 500, rtol=1e-3)
  np.testing.assert_allclose(found['network'], 1e3 * 2e9 * 15 / 16 / 200e9)
  np.testing.assert_allclose([found['hours'], found['chip_hours']], [1, 16])
  assert found['gigabytes'] == 3 and found['fits']


def test_estimate_of_other_numbers_of_chips():
  """Fewer have more examples; past the batch, more have one each."""
  one = aot_compile.estimate(_row(), aot_compile.V5E, 1)
  assert one['examples'] == 16 and one['network'] == 0
  np.testing.assert_allclose(one['arithmetic'], 16_000)
  assert one['gigabytes'] == 33 and not one['fits']
  # Traffic of parameters, 40 MB, does not grow with the examples.
  np.testing.assert_allclose(one['memory'], 8000 + 40e6 / 819e6, rtol=1e-6)
  many = aot_compile.estimate(_row(), aot_compile.V5E, 256)
  assert many['examples'] == 1 and many['arithmetic'] == 1000
  np.testing.assert_allclose(many['chip_hours'], 256)
  meta_world = _row(batch_size=50, examples=4)
  assert aot_compile.estimate(meta_world, aot_compile.V5E, 16)['examples'] == 4


@pytest.mark.parametrize('stage', steps.STAGES)
def test_steps_and_batches_of_the_paper(stage):
  """Only shapes are computed."""
  step = steps.make_step(stage, 'bfloat16', 'paper')
  B, T = step.example.image.shape[:2]
  expected = {
    'pretrain': (16, 25, 600_000),
    'dmcr': (16, 50, 102_100),
    'metaworld': (50, 50, 50_100),
  }
  assert (B, T, step.steps) == expected[stage]


@pytest.mark.slow
def test_a_step_compiled_for_four_devices():
  row = aot_compile.measure('pretrain', 'float32', 'debug', jax.devices())
  assert row['examples'] == 1 and row['collectives']['all-reduce'] > 1
  # Gradients are what is exchanged, and BatchNorm's moments.
  assert 1 < row['sent_bytes']['all-reduce'] / (4 * row['parameters']) < 1.2
  assert row['flops'] > 1e6 and row['xla_bytes'] > row['state_bytes']
  assert len(aot_compile.table([row]).splitlines()) == 2 + len(row['estimates'])
