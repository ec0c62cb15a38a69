"""PPO on language models: tokens and their masks, and the world of language that can be listed."""
