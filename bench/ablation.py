"""What makes the training loop fast or slow: each thing switched off alone, and measured.

Usage: ``python bench/ablation.py`` (`make ablation`), in the book's own environment.  Every variant
runs in a process of its own, in turn with the library as it is, at CartPole's own settings and at
the common setting of `bench.run`; what is stored are steps a second of whole updates.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
OUT = ROOT / "book" / "_data" / "ablation.json"
#: By name: what is switched, and, where it is an environment variable, which.
VARIANTS: dict[str, dict[str, str]] = {
    "as it is": {},
    "environments one after the other": {},
    "environments in processes": {},
    "two threads": {},
    "Adam by a loop over parameters": {},
    "each minibatch indexed by itself": {},
    "statistics after every gradient step": {},
    "distribution objects, with their checks": {},
    "a second pass, for an entropy of weight 0": {},
    "tanh left out": {},
    "layers as one operation": {},
    "MKL's compatible kernels": {"MKL_CBWR": "COMPATIBLE"},
    "torch's plain kernels": {"ATEN_CPU_CAPABILITY": "default"},
}
UPDATES = {"own": 30, "common": 60}


def configure(setting: str, variant: str) -> Any:
    """The configuration of a run."""
    from bench.peers.ours import COMMON
    from ppo_lib import settings

    config = settings("CartPole-v1") if setting == "own" else COMMON
    config = replace(config, total_steps=UPDATES[setting] * config.batch_size)
    vectorization = {
        "environments one after the other": "sync",
        "environments in processes": "async",
    }.get(variant, "array")
    threads = 2 if variant == "two threads" else 1
    return replace(config, vectorization=vectorization, num_threads=threads)


def switch(trainer: Any, variant: str) -> None:
    """Put the slower or the faster way of doing one thing in place of the library's."""
    import torch
    from torch import nn

    import ppo_lib.ppo as room

    if variant == "Adam by a loop over parameters":
        trainer.optimizer = torch.optim.Adam(trainer.parameters, eps=1e-5, foreach=False)
    elif variant == "each minibatch indexed by itself":

        def by_itself(batch: Any, size: int, generator: torch.Generator) -> Iterator[Any]:
            for index in torch.randperm(len(batch[0]), generator=generator).split(size):
                yield type(batch)(*(column[index] for column in batch))

        room.minibatches = by_itself
    elif variant == "statistics after every gradient step":
        gradient = trainer.gradient

        def with_statistics(minibatch: Any) -> Any:
            step = gradient(minibatch)
            trainer._statistics([step])
            return step

        trainer.gradient = with_statistics
    elif variant == "distribution objects, with their checks":

        class Objects(type(trainer.policy).dist):
            @staticmethod
            def log_prob(params: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
                return torch.distributions.Categorical(logits=params).log_prob(actions)

            @staticmethod
            def sample(params: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
                del generator  # these draw from torch's own
                return torch.distributions.Categorical(logits=params).sample()

        type(trainer.policy).dist = Objects
    elif variant == "a second pass, for an entropy of weight 0":
        loss = trainer.loss

        def with_entropy(minibatch: Any) -> Any:
            total, step = loss(minibatch)
            params = trainer.policy(minibatch.obs)
            return total - 0.0 * trainer.policy.dist.entropy(params).mean(), step

        trainer.loss = with_entropy
    elif variant in ("tanh left out", "layers as one operation"):
        for network in (trainer.policy, trainer.critic):
            if variant == "tanh left out":
                kept = [m for m in network.net if not isinstance(m, nn.Tanh)]
                network.net = nn.Sequential(*kept)
            else:
                network.net = one_operation(network.net)


def one_operation(net: Any) -> Any:
    """The layers of an ``nn.Sequential`` as one operation to autograd (eq-layer-gradient)."""
    import torch
    from torch import Tensor, nn

    class Layers(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
            *hidden, (weight, bias) = zip(parts[::2], parts[1::2], strict=True)
            inputs = [x]
            for w, b in hidden:
                inputs.append(torch.addmm(b, inputs[-1], w.t()).tanh_())
            ctx.save_for_backward(*inputs, *parts[::2])
            return torch.addmm(bias, inputs[-1], weight.t())

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
            saved, gradients = ctx.saved_tensors, []
            inputs, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
            for i in reversed(range(len(weights))):
                gradients += [gradient.sum(0), gradient.t().mm(inputs[i])]
                if i > 0:
                    gradient = gradient.mm(weights[i]) * (1 - inputs[i] ** 2)
            return None, *reversed(gradients)

    class OneOperation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Sequential(*(m for m in net if not isinstance(m, nn.Linear | nn.Tanh)))
            self.linears = nn.ModuleList(m for m in net if isinstance(m, nn.Linear))

        def forward(self, obs: Tensor) -> Tensor:
            x = self.before(obs)
            flat = x.reshape(-1, x.shape[-1])
            y = Layers.apply(flat, *(p for layer in self.linears for p in layer.parameters()))
            return y.view(*x.shape[:-1], y.shape[-1])

    return OneOperation()


def measure(setting: str, variant: str, seed: int) -> float:
    """Steps a second, the median over the updates of one run, in this process."""
    from ppo_lib import PPO

    with PPO("CartPole-v1", replace(configure(setting, variant), seed=seed)) as trainer:
        switch(trainer, variant)
        return float(median(trainer.learn()["steps_per_second"][2:]))


def run(setting: str, variant: str, seed: int) -> float:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.ablation", "--one", setting, variant, str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | VARIANTS[variant]
    if variant == "two threads":
        environment |= {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Measure every variant, in turn, and store the steps a second of every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("SETTING", "VARIANT", "SEED"))
    args = parser.parse_args()
    if args.one:
        setting, variant, seed = args.one
        print(measure(setting, variant, int(seed)))
        return
    runs: dict[str, dict[str, list[float]]] = {s: {v: [] for v in VARIANTS} for s in UPDATES}
    for seed in range(args.repeats):
        for setting, of_setting in runs.items():
            for variant, speeds in of_setting.items():
                speeds.append(round(run(setting, variant, seed)))
    sys.path.append(str(ROOT / "tools"))
    from stored import store

    store(OUT, "make ablation", {"steps_per_second": runs})
    for setting, of_setting in runs.items():
        first = of_setting["as it is"]
        for variant, speeds in of_setting.items():
            ratio = median(x / y for x, y in zip(speeds, first, strict=True))
            print(f"{setting:7} {variant:46} {median(speeds):8,.0f}  × {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
