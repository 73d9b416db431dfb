"""Simulated robots: what an agent sees and does, several at once."""

from drp_jax import extras

extras.require(__name__, 'dmc', 'cloudpickle', 'gymnasium', 'PIL')
