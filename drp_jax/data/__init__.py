"""Videos, shards of atomic actions, batches of them, and replay."""

from drp_jax import extras

extras.require(__name__, 'data', 'array_record', 'grain', 'tensorflow_datasets')
