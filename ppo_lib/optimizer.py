"""Adam over parameters that lie in one vector: a gradient, its length and a step are one tensor."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ppo_lib.validate import require


class Adam:
    """Adam (arXiv:1412.6980), by torch's own operation, with all parameters in one vector.

    The parameters become views of ``vector``: what a step writes there, the networks see.
    A dozen small tensors cost a dozen small operations each, more than the arithmetic itself.

    Args:
        parameters: what is trained; on one device, float32.
        eps: added to the root of the second moment, above 0.

    Attributes:
        vector: ``[P]``, all parameters.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, eps: float = 1e-5) -> None:
        self._parameters = list(parameters)
        require(bool(self._parameters), "parameters is empty, expected at least one")
        self.eps = eps
        self.vector = torch.cat([p.detach().flatten() for p in self._parameters])
        parts = self.vector.split([p.numel() for p in self._parameters])
        for parameter, part in zip(self._parameters, parts, strict=True):
            parameter.data = part.view_as(parameter)
        self._moments = torch.zeros_like(self.vector), torch.zeros_like(self.vector)
        self._steps = torch.zeros((), device=self.vector.device)

    def gradient(self, loss: Tensor) -> Tensor:
        """∇ of a scalar with respect to ``vector``, ``[P]``; the loss must depend on all of it."""
        gradients = torch.autograd.grad(loss, self._parameters)
        return torch.cat([gradient.flatten() for gradient in gradients])

    @torch.no_grad()
    def step(self, gradient: Tensor, *, learning_rate: float, max_norm: float) -> float:
        """Go one step down a gradient that is first scaled down to ``max_norm``.

        Args:
            gradient: ``[P]``.
            learning_rate: at least 0.
            max_norm: the greatest Euclidean length that is let through, above 0.

        Returns:
            The length that the gradient had.

        Raises:
            ValueError: if that is not finite; no parameter has changed then.
        """
        norm = gradient.norm().item()
        if not math.isfinite(norm):
            raise ValueError(
                f"gradient has length {norm}, expected a finite one: "
                "a smaller learning_rate or normalize_rewards may help"
            )
        if norm > max_norm:
            gradient = gradient * (max_norm / (norm + 1e-6))
        self._steps += 1
        # What torch.optim.Adam(fused=True) calls in the end.
        torch._fused_adam_(
            [self.vector],
            [gradient],
            *([moment] for moment in self._moments),
            [],
            [self._steps],
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """What the next steps depend on besides the parameters: both moments and a count."""
        first, second = self._moments
        return {"first_moment": first, "second_moment": second, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take up what `state_dict` has given."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])
