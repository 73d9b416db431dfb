"""Simulated robots as environments, several at once."""

from drp_jax import extras

extras.require(__name__, 'dmc', 'cloudpickle', 'gymnasium', 'PIL')
