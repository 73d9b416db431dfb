"""Tests of the decoder: what it looks up in the context frame, and when."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from drp_jax.models import image_decoder
from drp_jax.ops import masking, noise

_B, _T, _C = 2, 3, 4
_ATTENTION = image_decoder.CrossAttention(num_heads=4, mask_ratio=0.75)
_DECODER = image_decoder.ImageDecoder(
  depth=2, num_layers=1, num_heads=4, image_size=64, mask_ratio=0.75
)


def _normal(*shape):
  rng = np.random.default_rng(list(shape))
  return rng.normal(size=shape).astype(np.float32)


def _context(seed=0):
  return image_decoder.Context(
    coarse=_normal(_B, 8, 8, 8) + seed, fine=_normal(_B, 16, 16, 4)
  )


@functools.cache
def _variables(model, *args):
  del args
  inputs = (
    (_normal(_B * _T, 4, 4, _C), _normal(_B, 4, 4, _C))
    if model is _ATTENTION
    else (_normal(_B, _T, 5), _context())
  )
  shapes = jax.eval_shape(
    lambda key: model.init(key, *inputs, random_inputs.keys(0, _B), False),
    jax.random.key(0),
  )
  return random_inputs.fill(shapes)


@functools.cache
def _jitted(model, train):
  def call(*args):
    out = model.apply(_variables(model), *args, train, mutable=['batch_stats'])
    return out[0]

  return jax.jit(call)


def test_cross_attention_equals_numpy():
  h = w = 4
  x, context = _normal(_B * _T, h, w, _C), _normal(_B, h, w, _C)
  out = _jitted(_ATTENTION, False)(x, context, random_inputs.keys(0, _B))
  variables = _variables(_ATTENTION)
  p = variables['params']
  keep_keys = noise.split(random_inputs.keys(0, _B), 3)[0]
  kept = np.asarray(masking.keep_tokens(keep_keys, _T, h * w, 4))

  def project(tokens, name):
    return tokens @ p[name]['kernel'] + p[name]['bias']

  expected = np.zeros_like(x)
  for n in range(_B * _T):
    memory = context[n // _T].reshape(h * w, _C) + p['context_positions']
    tokens = x[n].reshape(h * w, _C) + p['query_positions']
    query = project(tokens, 'query')
    key, value = (project(memory[kept[n]], m) for m in ('key', 'value'))
    mixed = np.zeros((h * w, _C))
    for head in range(4):  # four heads of width 1
      scores = query[:, head, None] * key[None, :, head]
      weights = np.exp(scores)
      weights /= weights.sum(-1, keepdims=True)
      mixed[:, head] = weights @ value[:, head]
    result = project(mixed, 'out')
    stats = variables['batch_stats']['norm']['norm']
    result = (result - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
    result = result * p['norm']['norm']['scale'] + p['norm']['norm']['bias']
    expected[n] = np.maximum(x[n] + result.reshape(h, w, _C), 0)
  np.testing.assert_allclose(out, expected, atol=1e-4)


def test_decoder_reads_the_context_of_its_own_sequence():
  decode = _jitted(_DECODER, False)
  feat = _normal(_B, _T, 5)
  base = decode(feat, _context(), random_inputs.keys(0, _B))
  assert base.shape == (_B, _T, 64, 64, 3)
  context = _context()
  context.coarse[1] += 1.0
  out = decode(feat, context, random_inputs.keys(0, _B))
  np.testing.assert_array_equal(out[0], base[0])
  assert np.abs(out - base)[1].max() > 1e-3


def test_frames_do_not_mix_in_evaluation():
  decode = _jitted(_DECODER, False)
  feat = _normal(_B, _T, 5)
  base = decode(feat, _context(), random_inputs.keys(0, _B))
  changed = feat.copy()
  changed[:, 1] += 1.0
  out = decode(changed, _context(), random_inputs.keys(0, _B))
  np.testing.assert_array_equal(out[:, [0, 2]], base[:, [0, 2]])
  assert np.abs(out - base)[:, 1].max() > 1e-3


def test_kept_tokens_differ_between_frames_at_evaluation_too():
  feat = np.broadcast_to(_normal(_B, 1, 5), (_B, _T, 5))
  out = _jitted(_DECODER, False)(feat, _context(), random_inputs.keys(0, _B))
  assert np.abs(out[:, 0] - out[:, 1]).max() > 1e-3


def test_dropout_in_training_only():
  x, context = _normal(_B * _T, 4, 4, _C), _normal(_B, 4, 4, _C)
  variables = _variables(_ATTENTION)

  def weights_and_out(train):
    _, state = _ATTENTION.apply(
      variables,
      x,
      context,
      random_inputs.keys(0, _B),
      train,
      capture_intermediates=lambda module, _: module.name == 'out',
      mutable=['intermediates', 'batch_stats'],
    )
    return np.asarray(state['intermediates']['out']['__call__'][0])

  assert np.abs(weights_and_out(True) - weights_and_out(False)).max() > 1e-3


def test_without_a_context_there_is_nothing_to_look_up():
  """Nor to draw: keys have no influence."""
  feat = _normal(_B, _T, 5)
  variables = random_inputs.fill(
    jax.eval_shape(
      lambda key: _DECODER.init(
        key, feat, None, random_inputs.keys(0, _B), False
      ),
      jax.random.key(0),
    )
  )
  assert not any('context' in name for name in variables['params'])
  decode = jax.jit(
    lambda keys: _DECODER.apply(variables, feat, None, keys, False)
  )
  first, second = (decode(random_inputs.keys(i, _B)) for i in range(2))
  assert first.shape == (_B, _T, 64, 64, 3)
  np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize('side, channels', [(16, 16), (8, 32), (16, 96)])
def test_place_features_fall_off_with_distance(side, channels):
  places = np.asarray(image_decoder.place_features(side, side, channels))
  np.testing.assert_allclose(np.square(places).sum(-1), 2 * channels, rtol=1e-5)
  scores = places @ places.T
  assert (scores.argmax(-1) == np.arange(side**2)).all()
  row, column = np.divmod(np.arange(side**2), side)
  near = np.abs(row[:, None] - row) + np.abs(column[:, None] - column) == 1
  assert scores[near].min() > scores.mean() + 2 * scores.std()


@pytest.mark.parametrize('local_start', [True, False])
def test_local_start_attends_to_the_own_place(local_start):
  """Before training, a bright token of the context is seen where it is."""
  attention = image_decoder.CrossAttention(1, 0.0, local_start)
  x = jnp.zeros([1, 16, 16, 16])
  context = jnp.asarray(0.1 * _normal(1, 16, 16, 16))
  keys = random_inputs.keys(0, 1)
  variables = attention.init(jax.random.key(1), x, context, keys, False)

  def attend(context):
    keys = random_inputs.keys(0, 1)
    return attention.apply(variables, x, context, keys, False)[0]

  there, anywhere = 0.0, 0.0
  for place in ((3, 12), (0, 0), (8, 8), (15, 2), (10, 5)):
    bright = context.at[0, *place].add(1e-2)
    change = jnp.abs(attend(bright) - attend(context)).sum(-1)
    there, anywhere = there + change[place], anywhere + change.mean()
  assert (there > 5 * anywhere) == local_start
