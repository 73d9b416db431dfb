"""Residual image tower  [IPV, ctx_resnet]."""

import flax.linen as nn
import jax

from drp_jax.models import layers


class ImageEncoder(nn.Module):
  """Encodes images; used for the dynamics and, with own weights, for contexts.

  Attributes:
    depth: channels of the first stage; later ones have twice, four times that.
    num_layers: residual layers in each stage.
    axis_name: device axis for batch norm.
    remat: whether layers are computed again in the backward pass.
  """

  depth: int
  num_layers: int
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, image: jax.Array, train: bool
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """Encodes images.

    Args:
      image: [N, H, W, 3] in [-0.5, 0.5].
      train: batch statistics (True) or running ones.

    Returns:
      The embedding [N, H/16 * W/16 * 4 depth], and the maps before each pool:
      [N, H/2, W/2, depth], [N, H/4, W/4, 2 depth], [N, H/8, W/8, 4 depth].
    """
    x = layers.Conv(
      self.depth,
      (3, 3),
      strides=(2, 2),
      padding=((1, 1), (1, 1)),  # not SAME, which would shift by a pixel
      name='conv_in',
    )(image)
    x = nn.elu(x)
    residual = layers.RecomputedResidual if self.remat else layers.Residual
    maps = []
    for stage in range(3):
      features = self.depth * 2**stage
      for i in range(self.num_layers):
        x = residual(features, self.axis_name, name=f'stage{stage}_layer{i}')(
          x, train
        )
      maps.append(x)
      x = nn.avg_pool(x, (2, 2), strides=(2, 2))
    fine, middle, coarse = maps
    return x.reshape(x.shape[0], -1), (fine, middle, coarse)
