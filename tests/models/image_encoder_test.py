"""Tests of the image tower: maps, alignment, independence of images."""

import functools

import jax
import numpy as np
import random_inputs

from drp_jax.models import image_encoder

_MODEL = image_encoder.ImageEncoder(depth=2, num_layers=1)


@functools.cache
def _apply():
  shapes = jax.eval_shape(
    lambda key: _MODEL.init(key, _images(), False), jax.random.key(0)
  )
  variables = random_inputs.fill(shapes)
  return jax.jit(lambda image: _MODEL.apply(variables, image, False))


def _images():
  rng = np.random.default_rng(0)
  return rng.uniform(-0.5, 0.5, (3, 64, 64, 3)).astype(np.float32)


def test_maps_are_those_before_each_pool():
  embed, maps = _apply()(_images())
  assert embed.shape == (3, 4 * 4 * 8)
  assert [m.shape[1:] for m in maps] == [(32, 32, 2), (16, 16, 4), (8, 8, 8)]
  pooled = np.asarray(maps[-1]).reshape(3, 4, 2, 4, 2, 8).mean((2, 4))
  np.testing.assert_allclose(embed, pooled.reshape(3, -1), atol=1e-5)


def test_images_do_not_mix_in_evaluation():
  changed = _images()
  changed[0] += 0.3
  base, _ = _apply()(_images())
  out, _ = _apply()(changed)
  np.testing.assert_allclose(out[1:], base[1:], atol=1e-6)
  assert np.abs(out - base)[0].max() > 1e-3


def test_first_convolution_pads_as_in_torch():
  """Output i sees inputs 2i - 1, 2i, 2i + 1; SAME would see 2i .. 2i + 2."""
  variables = jax.tree.map(
    np.array, _MODEL.init(jax.random.key(0), _images(), False)
  )
  kernel = np.zeros((3, 3, 3, 2), np.float32)
  kernel[0, 1, 0, 0] = 1.0  # looks at the row above the center
  variables['params']['conv_in']['kernel'] = kernel
  image = np.zeros((1, 64, 64, 3), np.float32)
  image[0, 3] = 1.0  # an odd row: 2i - 1 for i = 2
  _, state = _MODEL.apply(
    variables,
    image,
    False,
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  out = state['intermediates']['conv_in']['__call__'][0]
  rows = np.nonzero(np.asarray(out)[0, :, 5, 0])[0]
  np.testing.assert_array_equal(rows, [2])
