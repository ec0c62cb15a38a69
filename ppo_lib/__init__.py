"""PPO, in small pure functions and a trainer on top; the book derives and checks each of them."""

import gymnasium as gym

from ppo_lib.checkpoint import load_policy
from ppo_lib.config import PPOConfig, settings
from ppo_lib.evaluate import evaluate
from ppo_lib.history import History
from ppo_lib.policies import Policy
from ppo_lib.ppo import PPO
from ppo_lib.returns import gae

__all__ = ["PPO", "History", "PPOConfig", "Policy", "evaluate", "gae", "load_policy", "settings"]
__version__ = "0.2.0"

gym.register(id="ppo_lib/Ridge-v0", entry_point="ppo_lib.exact.env:make_ridge_env")
