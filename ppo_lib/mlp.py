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

    ``forward`` takes ``[..., sizes[0]]`` float32 or float64 and gives ``[..., sizes[-1]]``.  It
    can be differentiated once; a second derivative is refused with a ValueError, but for
    torch.func's.
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
        # A list of its own: to find a layer through the module takes longer than to use it.
        self._linears = list(self.layers)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of the last layer."""
        if x.ndim != 2:
            y = self.forward(x.reshape(-1, x.shape[-1]))
            return y.view(*x.shape[:-1], y.shape[-1])
        if torch._C._are_functorch_transforms_active():
            return self._layer_by_layer(x)
        # Looked up at every call: torch.func.functional_call may have put others in their place.
        parts = [part for layer in self._linears for part in layer._parameters.values()]
        if torch.is_grad_enabled():
            return _Layers.apply(x, *parts)
        return _activations(x, parts)[-1]

    def _layer_by_layer(self, x: Tensor) -> Tensor:
        """The same for the transforms of torch.func, which do not look inside an operation."""
        for layer in self._linears[:-1]:
            x = layer(x).tanh()
        return self._linears[-1](x)


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
