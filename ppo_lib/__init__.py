"""The library that the book's chapters call: PPO, and the exact world it is checked on."""

import gymnasium as gym

from ppo_lib.evaluate import evaluate
from ppo_lib.history import History
from ppo_lib.ppo import PPO, PPOConfig
from ppo_lib.returns import gae

__all__ = ["PPO", "History", "PPOConfig", "evaluate", "gae"]
__version__ = "0.1.0"

gym.register(id="ppo_lib/Ridge-v0", entry_point="ppo_lib.exact.env:make_ridge_env")
