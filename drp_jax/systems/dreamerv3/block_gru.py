"""Recurrent core of DreamerV3: a GRU with block-diagonal matrices."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.systems.dreamerv3 import layers


class BlockDense(nn.Module):
  """Block-diagonal dense layer: output slice i depends on input slice i only.

  Attributes:
    features: width of the output.
    blocks: how many; they have to divide both widths.
    kernel_init: of the kernel [blocks, in, out].
  """

  features: int
  blocks: int
  kernel_init: Callable = layers.kernel_init()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., features]."""
    g, F = self.blocks, x.shape[-1]
    if F % g or self.features % g:
      raise ValueError(
        f'blocks={g} must divide the widths {F} and {self.features}'
        ' (config.dreamerv3.size).'
      )
    shape = g, F // g, self.features // g
    kernel = self.param('kernel', self.kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    parts = x.reshape(-1, g, F // g)
    y = jnp.einsum('ngi,gio->ngo', parts, kernel.astype(x.dtype))
    y = y.reshape(*x.shape[:-1], self.features)
    return y + jnp.broadcast_to(bias.astype(x.dtype), y.shape)


class BlockGRU(nn.Module):
  """Computes the next state from the last, a latent sample and an action.

  Every block sees its own slice of the state and all of what the three inputs
  were embedded to. As in DreamerV2, the reset gate multiplies the candidate's
  pre-activation and the update gate has a bias of -1.

  Attributes:
    hidden: width that each input is embedded to.
    blocks: of the recurrent state.
  """

  hidden: int
  blocks: int

  @nn.compact
  def __call__(
    self, deter: jax.Array, stoch: jax.Array, action: jax.Array
  ) -> jax.Array:
    """Computes one step.

    Args:
      deter: [..., D].
      stoch: [..., S], samples in a row.
      action: [..., A]; of what lies outside of [-1, 1], the sign counts.

    Returns:
      [..., D].
    """
    g, D, lead = self.blocks, deter.shape[-1], deter.shape[:-1]
    inputs = {
      'deter_in': deter,
      'stoch_in': stoch,
      'action_in': jnp.clip(action, -1.0, 1.0),
    }
    embedded = jnp.concatenate(
      [layers.Hidden(self.hidden, name=name)(x) for name, x in inputs.items()],
      -1,
    )
    everywhere = jnp.broadcast_to(
      embedded[..., None, :], (*lead, g, embedded.shape[-1])
    )
    slices = deter.reshape(*lead, g, D // g)
    x = jnp.concatenate([slices, everywhere], -1).reshape(*lead, -1)
    x = BlockDense(D, g, name='hidden')(x)
    x = nn.silu(layers.RMSNorm(name='norm')(x))
    gates = BlockDense(3 * D, g, name='gates')(x)
    gates = gates.reshape(*lead, g, 3, D // g)
    reset, cand, update = (gates[..., i, :].reshape(*lead, D) for i in range(3))
    cand = jnp.tanh(nn.sigmoid(reset) * cand)
    update = nn.sigmoid(update - 1.0)
    return update * cand + (1.0 - update) * deter
