"""Both stages of training, and what keeps their runs alive.

The steps, their state and what builds them need no extra; the loops need
drp_jax[train].
"""
