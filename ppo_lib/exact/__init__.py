"""The exact world: an MDP whose trajectories can all be listed, and itself as an environment."""
