"""Films: an episode of an agent, as moving pictures in a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymnasium.wrappers import RenderCollection

from ppo_lib.envs import make_envs
from ppo_lib.evaluate import play_episodes
from ppo_lib.policies import Policy
from ppo_lib.validate import optional, require

SUFFIXES = (".gif", ".webp", ".png")


def save_film(
    policy: Policy,
    env_id: str,
    path: str | Path,
    *,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
    wrappers: Sequence[Any] = (),
) -> int:
    """Play one episode with the most probable actions, and save a film of it.

    Args:
        policy: what acts.
        env_id: a gymnasium id of an environment that can draw itself.
        path: the file, ``.gif``, ``.webp`` or ``.png`` (animated); its folder must be there.
        seed: of the environment.
        env_kwargs: passed to the environment.
        wrappers: as in `make_envs`.

    Returns:
        The number of frames: one a step, and the first observation's.

    Raises:
        ValueError: if the suffix is another one.
        FileNotFoundError: if the folder is not there.
        ImportError: if pillow is not installed, which ``ppo_lib[film]`` installs.
    """
    path = checked_film_path(path)
    image = optional("PIL.Image", "film")
    kwargs = (env_kwargs or {}) | {"render_mode": "rgb_array"}
    envs = make_envs(env_id, 1, env_kwargs=kwargs, wrappers=[RenderCollection, *wrappers])
    try:
        play_episodes(envs, policy, seed=seed)
        frames = [image.fromarray(frame) for frame in envs.call("render")[0]]
        duration = 1000 / envs.metadata.get("render_fps", 30)
    finally:
        envs.close()
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return len(frames)


def checked_film_path(path: str | Path) -> Path:
    """The path of a film, refused unless it ends in one of `SUFFIXES` and its folder exists.

    Without pillow there is no film: that, too, is said before anything is played.
    """
    optional("PIL.Image", "film")
    path = Path(path)
    require(path.suffix in SUFFIXES, f"path is {path}, expected a name in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {path}, expected one in a folder that is there")
    return path
