"""Both stages of training, and what keeps their runs alive."""

from drp_jax import extras

extras.require(
  __name__, 'train', 'gymnasium', 'orbax', 'PIL', 'tensorboard', 'tqdm'
)
