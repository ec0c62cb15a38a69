"""A multilayer perceptron, forwards and backwards in one piece."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ppo_lib.validate import require


class MLP(nn.Module):
    """Linear layers with tanh between them, orthogonal weights and zero biases.

    Its outputs and its gradient are those of an ``nn.Sequential`` of the same layers.  To
    autograd it is a single operation: where layers are small, keeping the books of each would
    take as long as the arithmetic.

    Args:
        sizes: the number of inputs, of each hidden layer's units, and of outputs.
        generator: draws the weights.
        last_gain: the scale of the last layer; the others have √2.  At 0.01 a policy starts
            almost uniform (arXiv:2006.05990).

    Attributes:
        layers: the ``nn.Linear`` modules.

    ``forward`` takes ``[..., sizes[0]]`` and gives ``[..., sizes[-1]]``.  It can be
    differentiated once; a second derivative is refused with a ValueError.
    """

    def __init__(
        self, sizes: Sequence[int], generator: torch.Generator, *, last_gain: float
    ) -> None:
        super().__init__()
        require(
            min(sizes) >= 1, f"sizes is {list(sizes)}, expected every layer to be at least 1 wide"
        )
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, *widths) for widths in pairwise(sizes)
        )
        for layer in self.layers:
            gain = last_gain if layer is self.layers[-1] else 2**0.5
            nn.init.orthogonal_(layer.weight, gain, generator=generator)
            nn.init.zeros_(layer.bias)
        # Looked up once: to find a parameter through its modules takes as long as to use it.
        self._parts = [part for layer in self.layers for part in (layer.weight, layer.bias)]

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the last layer."""
        if x.ndim != 2:
            y = self.forward(x.reshape(-1, x.shape[-1]))
            return y.view(*x.shape[:-1], y.shape[-1])
        if torch.is_grad_enabled():
            return _Layers.apply(x, *self._parts)
        return _activations(x, self._parts)[-1]


def _activations(x: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """The input, what each hidden layer makes of it, and the output, all ``[B, …]``."""
    *hidden, last = zip(parts[::2], parts[1::2], strict=True)
    activations = [x]
    for weight, bias in hidden:
        activations.append(_tanh_(linear(activations[-1], weight, bias)))
    return [*activations, linear(activations[-1], *last)]


def _tanh_(x: Tensor) -> Tensor:
    """tanh in place, on the CPU by numpy, whose own is up to ten times as fast there."""
    if x.device.type != "cpu":
        return x.tanh_()
    array = x.numpy()
    np.tanh(array, out=array)
    return x


class _Layers(torch.autograd.Function):
    """The chain rule, from the last layer to the first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parts: Tensor) -> Tensor:
        *inputs, y = _activations(x, parts)
        ctx.save_for_backward(*inputs, *parts[::2])
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        require(not torch.is_grad_enabled(), "create_graph is True, expected False for an MLP")
        saved, gradients = ctx.saved_tensors, []
        inputs, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        for i in reversed(range(len(weights))):
            gradients += [gradient.sum(0), gradient.t().mm(inputs[i])]
            if i > 0:
                # The input is tanh of the layer before, whose slope is 1 - tanh².
                gradient = torch.ops.aten.tanh_backward(gradient.mm(weights[i]), inputs[i])
        to_input = gradient.mm(weights[0]) if ctx.needs_input_grad[0] else None
        return to_input, *reversed(gradients)
