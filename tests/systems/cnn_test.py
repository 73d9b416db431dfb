"""Tests of the plain convolutional towers."""

import jax
import numpy as np
import random_inputs

from drp_jax.systems import dreamerv2

_DEPTH = 2


def _apply(model, x):
  params = random_inputs.fill(jax.eval_shape(model.init, jax.random.key(0), x))
  out, state = model.apply(
    params, x, capture_intermediates=True, mutable=['intermediates']
  )
  return params['params'], np.asarray(out), state['intermediates']


def _images():
  rng = np.random.default_rng(0)
  return rng.uniform(-0.5, 0.5, (3, 64, 64, 3)).astype(np.float32)


def test_encoder_halves_without_padding_and_ends_in_elu():
  params, out, inner = _apply(dreamerv2.CNNEncoder(_DEPTH), _images())
  sides = [inner[f'conv{i}']['__call__'][0].shape[1:] for i in range(4)]
  assert sides == [(31, 31, 2), (14, 14, 4), (6, 6, 8), (2, 2, 16)]
  assert out.shape == (3, 32 * _DEPTH)
  last = np.asarray(inner['conv3']['__call__'][0]).reshape(3, -1)
  expected = np.where(last > 0, last, np.expm1(np.minimum(last, 0)))
  np.testing.assert_allclose(out, expected, atol=1e-5)
  patch = _images()[0, 4:8, 6:10]  # row 2, column 3 of the first map
  by_hand = np.tensordot(patch, params['conv0']['kernel'], 3)
  by_hand += params['conv0']['bias']
  first = np.asarray(inner['conv0']['__call__'][0])
  np.testing.assert_allclose(first[0, 2, 3], by_hand, atol=1e-5)


def test_decoder_grows_from_one_pixel_and_ends_linearly():
  rng = np.random.default_rng(0)
  feat = rng.normal(size=(2, 3, 5)).astype(np.float32)
  params, out, inner = _apply(dreamerv2.CNNDecoder(_DEPTH), feat)
  assert out.shape == (2, 3, 64, 64, 3)
  sides = [inner[f'conv{i}']['__call__'][0].shape[1] for i in range(4)]
  assert sides == [5, 13, 30, 64]
  last = np.asarray(inner['conv3']['__call__'][0])
  np.testing.assert_array_equal(out.reshape(last.shape), last)
  # The first is linear in the one pixel; its kernel is turned round.
  dense = (
    feat.reshape(6, 5) @ params['dense']['kernel'] + params['dense']['bias']
  )
  kernel = params['conv0']['kernel'][::-1, ::-1]
  by_hand = np.einsum('nc,hwcf->nhwf', dense, kernel)
  by_hand += params['conv0']['bias']
  first = np.asarray(inner['conv0']['__call__'][0])
  np.testing.assert_allclose(first, by_hand, atol=1e-4)
