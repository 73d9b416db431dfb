"""Tests of the masked autoencoder's decoder: what it reads, and from when."""

import functools

import jax
import numpy as np
import random_inputs

from drp_jax.models import mae_decoder

_B, _T, _K, _D = 2, 5, 3, 6
_MODEL = mae_decoder.MAEDecoder(
  num_blocks=1,
  width=8,
  num_heads=1,
  mlp_ratio=2,
  image_size=64,
  patch_values=8,
)


def _inputs():
  rng = np.random.default_rng(0)
  hidden = rng.uniform(size=(_B, _T, _K)) > 0.5
  hidden[:, 0] = False
  hidden[:, 2:, 0] = True
  return dict(
    encoded=rng.normal(size=(_B, _T, _K + 1, _D)).astype(np.float32),
    points=rng.uniform(0, 63, (_B, _T, _K, 2)).astype(np.float32),
    window_step=np.tile([0, 0, 1, 2, 0], (_B, 1)),
    is_first=np.tile(np.arange(_T) == 0, (_B, 1)),
    hidden=hidden,
  )


@functools.cache
def _jitted():
  params = random_inputs.fill(
    jax.eval_shape(lambda key: _MODEL.init(key, **_inputs()), jax.random.key(0))
  )
  return jax.jit(lambda inputs: _MODEL.apply(params, **inputs))


def _decode(**changes):
  return np.asarray(_jitted()({**_inputs(), **changes}))


def test_what_the_encoder_left_at_hidden_places_is_not_read():
  inputs = _inputs()
  changed = inputs['encoded'].copy()
  changed[:, :, 1:][inputs['hidden']] = 7.0
  out = _decode(encoded=changed)
  assert out.shape == (_B, _T, _K, 8)
  np.testing.assert_array_equal(out, _decode())


def test_hidden_places_are_told_apart_by_their_points():
  points = _inputs()['points'].copy()
  points[:, 3, 0] += 8.0
  assert np.abs(_decode(points=points) - _decode())[:, 3, 0].max() > 1e-3


def test_visible_tokens_of_the_whole_window_help_and_of_no_other():
  changed = _inputs()['encoded'].copy()
  changed[:, 3, 0] += 1.0  # [MAT], never hidden
  difference = np.abs(_decode(encoded=changed) - _decode()).max((0, 2, 3))
  assert (difference[1:4] > 1e-5).all()  # the past of the window too
  np.testing.assert_array_equal(difference[[0, 4]], 0)
