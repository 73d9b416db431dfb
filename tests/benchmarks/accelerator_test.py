"""One command for an accelerator, on the CPU at debug size."""

import json
import os
import pathlib
import subprocess
import sys
import time

import bare
import jax
import numpy as np
import pytest

from benchmarks import accelerator, accelerator_jobs, steps
from drp_jax.systems import registry

_ROOT = pathlib.Path(__file__).parents[2]


def _run(env, *flags):
  return subprocess.run(
    [sys.executable, '-m', 'benchmarks.accelerator', *flags],
    cwd=_ROOT,
    env=env,
    capture_output=True,
    text=True,
    check=False,
  )


_TRACE = """
import sys
from benchmarks import accelerator, accelerator_jobs, plain_tests, steps, work
step = steps.make_step('dmcr', 'float32', 'debug')
print(work.of_step(step, steps.random_batch(step)).flops > 1e8)
print({'orbax', 'tensorboard', 'PIL', 'tqdm', 'cv2'} & sys.modules.keys())
print(accelerator_jobs.device()['matmul_flops'].keys())
"""


def test_a_step_can_be_made_on_a_bare_machine(tmp_path):
  """Neither grain nor TFDS, orbax, torch, MuJoCo, gymnasium, tensorboard."""
  done = subprocess.run(
    [sys.executable, '-c', _TRACE],
    cwd=_ROOT,
    env=bare.environment(tmp_path),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  traced, loaded, precisions = done.stdout.splitlines()
  assert (traced, loaded) == ('True', 'set()')
  assert 'bfloat16' in precisions


@pytest.mark.slow
def test_a_sweep_on_a_bare_machine(tmp_path):
  """Compiles three steps of the debug size."""
  out = tmp_path / 'results' / 'found.json'
  flags = '--preset=debug', '--stage=pretrain', '--agent=ipv', '--minutes=30'
  done = _run(
    bare.environment(tmp_path), *flags, '--precision=float32', f'--out={out}'
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(out.read_text())
  assert found['platform'] == 'cpu' and found['versions']['jax']
  assert found['matmul_flops']['float32'] > 1e8
  (beside,) = found['differences']
  assert beside['stage'] == 'pretrain' and beside['precision'] == 'float32'
  assert beside['loss'] < 1e-4 and beside['gradient'] < 1e-4, beside
  (row,) = found['rows']
  assert row.keys() >= {'stage', 'preset', 'agent', 'precision', 'batch'}
  assert len(row['ms']) == len(row['device_ms']) > 2 and min(row['ms']) > 0
  assert row['traces'] == 1  # no step was traced anew
  step = steps.make_step('pretrain', 'float32', 'debug', 'ipv')
  median = np.median(row['ms'])
  np.testing.assert_allclose(row['hours'], step.steps * median / 3.6e6)
  np.testing.assert_allclose(
    row['flops_per_second'], 1e3 * row['flops'] / median
  )
  assert row['flops'] > row['xla_flops'] > 0  # which sees loops once
  assert row['compile_seconds'] > 0 and row['plan_gib'] > 0
  assert found['dropped'] == []
  *_, last = done.stdout.strip().splitlines()
  assert last == accelerator.line(row, found['matmul_flops'])


def test_rows_that_there_is_no_time_for_are_dropped(tmp_path):
  out = tmp_path / 'found.json'
  done = _run(os.environ, '--minutes=0', '--preset=nano', f'--out={out}')
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(out.read_text())
  assert len(found['dropped']) == 24
  assert 'left no time for 24 rows' in done.stdout


def test_a_row_that_fails_says_so_and_ends_nothing(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_there_is_no_such_flag=1')
  row = accelerator.Row('pretrain', 'debug', 'ipv', 'float32')
  found = accelerator.measure(row, '', time.monotonic() + 600)
  assert 'xla_there_is_no_such_flag' in found['failure']
  assert not found['out_of_memory'] and found['agent'] == 'ipv'
  text = accelerator.line(found, {'float32': 1e12})
  assert text.startswith('| pretrain, debug, ipv, float32 | ended with code')
  assert text.count('|') == accelerator.HEADER.splitlines()[0].count('|')


def test_no_row_is_waited_for_beyond_the_deadline():
  row = accelerator.Row('pretrain', 'debug', 'ipv', 'float32')
  with pytest.raises(TimeoutError):
    accelerator.measure(row, '', time.monotonic())


def test_the_most_informative_rows_come_first():
  found = accelerator.rows(
    steps.STAGES,
    ('paper', 'small', 'nano'),
    accelerator.AGENTS,
    accelerator.PRECISIONS,
  )
  assert len(set(found)) == len(found) == 72  # DreamerV3 has no pre-training
  for stage in ('pretrain', 'dmcr'):
    for precision in ('bfloat16', 'float32'):
      row = accelerator.Row(stage, 'paper', 'drp', precision)
      assert row in found[:4]
  assert {row.preset for row in found[:8]} == {'paper'}
  assert found[-1].precision == 'highest'
  assert accelerator.PRECISIONS == tuple(accelerator_jobs.PRECISIONS)


def _row(**changes):
  row = dict(
    stage='dmcr',
    preset='paper',
    agent='ipv',
    precision='bfloat16',
    batch=[16, 50],
    trace_seconds=5.2,
    compile_seconds=31.4,
    ms=[50.0, 40.0, 60.0],
    device_ms=[45.0, 44.0, 46.0],
    peak_gib=17.25,
    plan_gib=16.0,
    flops_per_second=5e13,
    hours=1.42,
  )
  return row | changes


def test_a_line_of_the_table():
  products = {'bfloat16': 5e14}
  assert accelerator.line(_row(), products) == (
    '| dmcr, paper, ipv, bfloat16 | 16 x 50 | 5, 31 | 50 (40 to 60) | 45 |'
    ' 17.2, 16.0 | 50 (10.0 %) | 1.4 |  |'
  )
  theirs = dict(
    contextwm_ms=[100.0, 101.0, 99.0],
    contextwm_peak_gib=None,
    ratios=[2.0, 2.5, 1.65],
  )
  text = accelerator.line(_row(**theirs), products)
  assert text.endswith('| 100 (99 to 101), -, 2 (1.65 to 2.5) |')
  failed = _row(failure='RESOURCE_EXHAUSTED: ...', out_of_memory=True)
  text = accelerator.line(failed, products)
  assert text.startswith('| dmcr, paper, ipv, bfloat16 | out of memory | |')


def test_a_checkout_without_the_code_is_an_error(tmp_path):
  done = _run(os.environ, f'--checkout={tmp_path}')
  assert done.returncode == 1 and 'holds no wmlib' in done.stderr
  assert 'Traceback' not in done.stderr


def test_differences_are_relative_to_the_array_and_its_set():
  expected = {
    'a/x': np.array([100.0, 0.0]),
    'a/y': np.array([0.0]),  # but for rounding
    'b/z': np.array([1e-3, 2e-3]),
  }
  found = {
    'a/x': np.array([100.0, 0.1]),
    'a/y': np.array([0.01]),
    'b/z': np.array([1e-3, 2e-3]),
  }
  largest = accelerator_jobs.largest('gradient', found, expected)
  assert largest['gradient_of'] == 'a/y'
  np.testing.assert_allclose(largest['gradient'], 0.01 / 2)
  found['b/z'] = np.array([np.nan, 2e-3])
  assert accelerator_jobs.largest('gradient', found, expected) == {
    'gradient': pytest.approx(np.nan, nan_ok=True),
    'gradient_of': 'b/z',
  }
  losses = accelerator_jobs.largest('loss', {'l': 1.5}, {'l': 2.0})
  assert losses == {'loss': 0.25, 'loss_of': 'l'}


@pytest.mark.parametrize('agent', ['drp', 'dreamerv3'])
def test_batches_are_random_and_of_the_types_of_real_ones(agent):
  step = steps.make_step('dmcr', 'float32', 'debug', agent)
  batch = steps.random_batch(step)
  jax.tree.map(
    lambda x, like: np.testing.assert_equal(
      (x.shape, x.dtype), (like.shape, like.dtype)
    ),
    batch,
    step.example,
  )
  assert batch.image.std() > 50 and batch.action.std() > 0.4
  if registry.build(step.config, 1, None).num_keypoints:
    assert batch.motion.flow.astype(np.float32).std() > 0.9
    assert 0 <= batch.motion.points.min() < batch.motion.points.max() <= 63
