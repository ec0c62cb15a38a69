"""Make the films of the book: ``python tools/films.py [NAME …]``, or ``make films`` for all.

Each film is an animated WebP in ``book/_static/films`` with a still beside it, for readers who
want no motion and for print.  They show one run each, and the chapters say so; what many seeds
do stands in their figures.

| film | what it shows | needs |
|---|---|---|
| ``cartpole`` | a policy before and after training | |
| ``ladder`` | three rungs of the ladder after equally many steps | |
| ``ridge`` | the policy on the ridge as the exact gradient climbs | |
| ``robots`` | two robots of MuJoCo, before and after | ``requirements-control.txt`` |
"""

import argparse
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ppo_lib import PPO, PPOConfig, settings
from ppo_lib.book import climbs
from ppo_lib.book.figures import QUANTITY, draw_ridge, set_style
from ppo_lib.book.fleet import Fleet
from ppo_lib.exact import mdp
from ppo_lib.policies import Policy

BOOK = Path(__file__).resolve().parents[1] / "book"
FILMS = BOOK / "_static" / "films"
LARGEST = 400_000  #: bytes of a film
SEED = 0  #: of every training run
SEEN = 10_000  #: the seed of the first episode that is filmed, far from training's
INK, GROUND, FLOOR = "#1f2933", "#ffffff", "#8a8a8a"
Picture = Image.Image


# -- what every film needs -------------------------------------------------------------------


def save(name: str, frames: Sequence[Picture], *, fps: float, still: int) -> None:
    """Write a film and its still, the frame with the number ``still``.

    Raises:
        ValueError: if the film is larger than `LARGEST`.
    """
    FILMS.mkdir(exist_ok=True)
    palette = frames[still].quantize(128, dither=Image.Dither.NONE)
    flat = [f.quantize(palette=palette, dither=Image.Dither.NONE).convert("RGB") for f in frames]
    path = FILMS / f"{name}.webp"
    flat[0].save(
        path, save_all=True, append_images=flat[1:], duration=1000 / fps, loop=0, lossless=True,
        quality=90, method=4, minimize_size=True,
    )  # fmt: skip
    flat[still].save(FILMS / f"{name}.still.webp", lossless=True)
    size = path.stat().st_size
    print(f"{path.name}: {len(frames)} frames, {len(frames) / fps:.0f} s, {size / 1000:.0f} kB")
    if size > LARGEST:
        raise ValueError(f"{path.name} has {size} bytes, more than {LARGEST}")


def beside(panels: Sequence[Picture]) -> Picture:
    """Pictures of one height, from left to right with a gap."""
    gap = 16
    width = sum(panel.width for panel in panels) + gap * (len(panels) - 1)
    whole = Image.new("RGB", (width, panels[0].height), GROUND)
    left = 0
    for panel in panels:
        whole.paste(panel, (left, 0))
        left += panel.width + gap
    return whole


def write(picture: Picture, place: tuple[int, int], text: str, size: int = 22) -> None:
    """Put a line of text into a picture."""
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text(place, text, fill=INK, font=font)


# -- CartPole --------------------------------------------------------------------------------


def balance(policy: Policy, title: str, num_frames: int) -> Iterator[Picture]:
    """CartPole, played with the most probable actions; every second step is a frame.

    After a fall the last picture is held for a second, and the next episode begins.
    """
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    made = 0
    for seed in itertools.count(SEEN):
        obs, _ = env.reset(seed=seed)
        for step in itertools.count(1):
            obs, _, terminated, truncated, _ = env.step(policy.act(obs))
            over = terminated or truncated
            if step % 2 and not over:
                continue
            said = f"fell after {step} steps" if terminated else f"{step} steps"
            picture = panel(env.render(), title, said)
            for _ in range(25 if terminated else 1):
                yield picture
                made += 1
                if made == num_frames:
                    env.close()
                    return
            if over:
                break


def panel(pixels: np.ndarray, title: str, said: str) -> Picture:
    """What CartPole has drawn, without the sky, under two lines of text."""
    cart = Image.fromarray(pixels).crop((100, 150, 500, 330))
    whole = Image.new("RGB", (cart.width, cart.height + 64), GROUND)
    whole.paste(cart, (0, 64))
    write(whole, (8, 4), title)
    write(whole, (8, 34), said, 19)
    return whole


def cartpole() -> None:
    """The same network before and after training."""
    with PPO("CartPole-v1", PPOConfig(total_steps=60_000, learning_rate=8e-3, seed=SEED)) as ppo:
        before = list(balance(ppo.policy, "before training", 250))
        ppo.learn()
        after = balance(ppo.policy, "after 60,000 steps", 250)
        save("cartpole", [beside(p) for p in zip(before, after, strict=True)], fps=25, still=100)


def trained(rung: str) -> Policy:
    """What one run of a rung of the ladder has learned at the end of its budget."""
    torch.set_num_threads(1)
    where = climbs.CLIMBS["cartpole"]
    stored = climbs.load(BOOK / "_data" / "ladder-cartpole.json")
    numbers = {"total_steps": where.total_steps, "gamma": where.gamma, "seed": SEED}
    fleet = Fleet(where.world, PPOConfig(hidden_sizes=climbs.HIDDEN_SIZES, **numbers), (SEED,))
    learner = climbs.Learner(fleet, climbs.RUNGS[rung], stored[rung].learning_rate)
    while learner.env_steps[0] < learner.budget:
        learner.update(learner.collect())
    policy, _ = fleet.modules
    policy.load_state_dict({name: param[0] for name, param in fleet.actor.items()})
    return policy


def rungs() -> None:
    """Three rungs of the ladder after the same number of steps."""
    titles = {"return": "the return", "gae": "GAE", "clip": "GAE, reuse and the clip"}
    panels = [balance(trained(rung), title, 250) for rung, title in titles.items()]
    save("ladder", [beside(three) for three in zip(*panels, strict=True)], fps=25, still=100)


# -- the ridge -------------------------------------------------------------------------------

CLIMBS, RATE = 60, 0.5  #: gradient steps of the film, and the length of each


def climb() -> Iterator[torch.Tensor]:
    """The policy before each of the exact gradient steps, and after the last."""
    world, theta = mdp.ridge(), torch.zeros(14, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(CLIMBS + 1):
        policy = theta.softmax(-1)
        yield policy.detach()
        (gradient,) = torch.autograd.grad(mdp.expected_return(world, policy, 1.0), theta)
        theta = (theta + RATE * gradient).detach().requires_grad_()


def ridge() -> None:
    """Arrows as wide as probabilities, and the expected return that they have."""
    set_style()
    world, policies = mdp.ridge(), list(climb())
    goals = [float(mdp.expected_return(world, policy, 1.0)) for policy in policies]
    best = float(mdp.expected_return(world, mdp.best_policy(world, 1.0), 1.0))
    frames = []
    for step, policy in enumerate(policies):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 4.0))
        draw_ridge(world, axes=left, policy=policy)
        right.axhline(best, color=FLOOR, linestyle="--", linewidth=1)
        right.text(CLIMBS, best, "the best policy", ha="right", va="bottom", color="#555555")
        right.plot(goals[: step + 1], color=QUANTITY["J"])
        right.plot(step, goals[step], "o", color=QUANTITY["J"])
        right.set(xlim=(-1, CLIMBS + 1), ylim=(0, best * 1.15), ylabel="$J(\\theta)$")
        right.set(xlabel="exact gradient steps", title=f"step {step}, J = {goals[step]:.2f}")
        frames.append(picture_of(figure))
    save("ridge", [*frames, *frames[-1:] * 12], fps=8, still=CLIMBS)


def picture_of(figure: plt.Figure) -> Picture:
    """A drawn figure, in pixels; it is closed."""
    pixels = io.BytesIO()
    figure.savefig(pixels, dpi=110)
    plt.close(figure)
    return Image.open(pixels).convert("RGB")


# -- robots ----------------------------------------------------------------------------------

SCALE = 110  #: pixels a metre
VIEW = (340, 250)
CAPSULE = 3  #: MuJoCo's number of the form that these robots are made of
ROBOTS = {"HalfCheetah-v5": "HalfCheetah", "Hopper-v5": "Hopper"}
STEPS = 200_000  #: that a robot learns from: a fifth of what chapter 8 gives it


def draw_robot(env: gym.Env, title: str, said: str) -> Picture:
    """A robot from the side: each capsule a thick line, where the physics have put it.

    No graphics card is needed, and no server: both robots move in a plane.
    """
    model, data = env.unwrapped.model, env.unwrapped.data
    wide = Image.new("RGB", (2 * VIEW[0], 2 * VIEW[1]), GROUND)  # drawn double, for smooth edges
    pen, scale = ImageDraw.Draw(wide), 2 * SCALE
    ahead, ground = data.qpos[0], 2 * VIEW[1] - 40

    def place(x: float, z: float) -> tuple[float, float]:
        return VIEW[0] + (x - ahead) * scale, ground - z * scale

    pen.line([(0, ground), (wide.width, ground)], fill=FLOOR, width=4)
    for metre in range(int(ahead) - 4, int(ahead) + 5):
        x, _ = place(metre, 0)
        pen.line([(x, ground), (x, ground + 14)], fill=FLOOR, width=4)
        pen.text((x + 8, ground + 6), f"{metre} m", fill="#555555", font=ImageFont.load_default(24))
    for geom in np.flatnonzero(model.geom_type == CAPSULE):
        radius, half = model.geom_size[geom, :2]
        (x, _, z), axis = data.geom_xpos[geom], data.geom_xmat[geom].reshape(3, 3)[:, 2]
        ends = [place(x + sign * half * axis[0], z + sign * half * axis[2]) for sign in (-1, 1)]
        color = "#0072B2" if geom % 2 else "#56B4E9"
        pen.line(ends, fill=color, width=round(2 * radius * scale))
        for px, pz in ends:
            r = radius * scale
            pen.ellipse((px - r, pz - r, px + r, pz + r), fill=color)
    picture = wide.resize(VIEW, Image.Resampling.LANCZOS)
    write(picture, (8, 4), title)
    write(picture, (8, 32), said, 19)
    return picture


def walk(policy: Policy, env_id: str, title: str, num_frames: int) -> Iterator[Picture]:
    """A robot with its mean actions; a frame for each 1/10 s, episode after episode."""
    env = gym.make(env_id)
    every = max(1, 2 * round(1 / (20 * env.unwrapped.dt)))
    made = 0
    for seed in itertools.count(SEEN):
        obs, _ = env.reset(seed=seed)
        for step in itertools.count():
            if step % every == 0:
                yield draw_robot(env, title, f"{step * env.unwrapped.dt:.1f} s")
                made += 1
                if made == num_frames:
                    env.close()
                    return
            obs, _, terminated, truncated, _ = env.step(policy.act(obs))
            if terminated or truncated:
                break


def robots() -> None:
    """HalfCheetah and Hopper, before and after training with the library's settings."""
    torch.set_num_threads(1)
    rows = []
    for env_id, name in ROBOTS.items():
        config = replace(settings(env_id), total_steps=STEPS, seed=SEED)
        with PPO(env_id, config) as trainer:
            before = list(walk(trainer.policy, env_id, f"{name}, before", 50))
            trainer.learn()
            title = f"after {trainer.env_steps:,} steps"
            after = list(walk(trainer.policy, env_id, title, 50))
        rows.append([beside(pair) for pair in zip(before, after, strict=True)])
    frames = []
    for upper, lower in zip(*rows, strict=True):
        frame = Image.new("RGB", (upper.width, upper.height + lower.height + 16), GROUND)
        frame.paste(upper, (0, 0))
        frame.paste(lower, (0, upper.height + 16))
        frames.append(frame)
    save("robots", frames, fps=10, still=30)


MAKE: dict[str, Callable[[], None]] = {
    "cartpole": cartpole,
    "ladder": rungs,
    "ridge": ridge,
    "robots": robots,
}


def main() -> None:
    """Make the films named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *MAKE], metavar="NAME")
    for name in parser.parse_args().names or MAKE:
        MAKE[name]()


if __name__ == "__main__":
    main()
