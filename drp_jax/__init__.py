"""Pre-training for reinforcement learning from videos (DRP), and baselines."""

__version__ = '0.1.0'
