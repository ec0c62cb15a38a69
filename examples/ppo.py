"""PPO in one file: `python ppo.py` trains on CartPole-v1.  It needs torch, gymnasium and numpy."""

import sys

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 40_960  # environment steps in all
N, T, EPOCHS, MINIBATCH, RATE = 8, 64, 4, 128, 2e-3
GAMMA, LAMBDA, EPSILON, MAX_NORM = 0.98, 0.95, 0.2, 0.5


def network(outputs: int, scale: float) -> nn.Sequential:
    """Two hidden layers; the last one starts small, so that no action is preferred."""
    net = nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )
    for layer, gain in zip(net[::2], (2**0.5, 2**0.5, scale), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return net


torch.manual_seed(0)
actor, critic = network(2, 0.01), network(1, 1.0)
parameters = [*actor.parameters(), *critic.parameters()]
optimizer = torch.optim.Adam(parameters, lr=RATE, eps=1e-5)
envs = [gym.make("CartPole-v1") for _ in range(N)]
now = np.stack([env.reset(seed=n)[0] for n, env in enumerate(envs)])

for update in range(STEPS // (N * T)):
    optimizer.param_groups[0]["lr"] = RATE * (1 - update * N * T / STEPS)

    # Collect T steps of N environments: [T, N].
    obs, next_obs = torch.zeros(2, T, N, 4)
    actions, log_probs, rewards, terminated, truncated = torch.zeros(5, T, N)
    for t in range(T):
        obs[t] = torch.from_numpy(now)
        with torch.no_grad():
            policy = Categorical(logits=actor(obs[t]))
        actions[t] = policy.sample()
        log_probs[t] = policy.log_prob(actions[t])
        for n, env in enumerate(envs):
            now[n], rewards[t, n], dead, late, _ = env.step(int(actions[t, n]))
            next_obs[t, n] = torch.from_numpy(now[n])  # the true next state, not the reset one
            terminated[t, n], truncated[t, n] = dead, late
            if dead or late:
                now[n], _ = env.reset()

    # Advantages, from the last step to the first.
    with torch.no_grad():
        values, next_values = critic(obs)[..., 0], critic(next_obs)[..., 0]
    delta = rewards + GAMMA * next_values * (1 - terminated) - values
    goes_on = (1 - terminated) * (1 - truncated)
    advantages, later = torch.zeros(T, N), torch.zeros(N)
    for t in reversed(range(T)):
        advantages[t] = later = delta[t] + GAMMA * LAMBDA * goes_on[t] * later
    returns = advantages + values

    # Several passes over the batch.
    batch = [x.flatten(0, 1) for x in (obs, actions, log_probs, advantages, returns)]
    for _ in range(EPOCHS):
        for rows in torch.randperm(N * T).split(MINIBATCH):
            s, a, old, A, R = (x[rows] for x in batch)
            A = (A - A.mean()) / (A.std() + 1e-8)
            ratio = (Categorical(logits=actor(s)).log_prob(a) - old).exp()
            gain = torch.min(ratio * A, ratio.clamp(1 - EPSILON, 1 + EPSILON) * A).mean()
            loss = -gain + 0.5 * (critic(s)[:, 0] - R).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, MAX_NORM)
            optimizer.step()

# Play twenty episodes with the likeliest actions.
earned = []
for episode in range(20):
    state, over = envs[0].reset(seed=1000 + episode)[0], False
    earned.append(0.0)
    while not over:
        action = int(actor(torch.from_numpy(state)).argmax())
        state, reward, dead, late, _ = envs[0].step(action)
        earned[-1] += float(reward)
        over = dead or late
print(f"mean return of {len(earned)} episodes: {np.mean(earned):.1f}")
