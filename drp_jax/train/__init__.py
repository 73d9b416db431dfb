"""The loops of both stages; they need drp_jax[train]."""
