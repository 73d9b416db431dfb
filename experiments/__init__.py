"""Commands: they read configs and flags, and call the library."""

from drp_jax import extras

# The loops' packages, before a command imports one of them.
extras.require(
  __name__, 'train', 'gymnasium', 'orbax', 'PIL', 'tensorboard', 'tqdm'
)
