"""What changes the weights: SGD or, for kernels in front of a norm, Muon; and the schedule of their rates."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from s9.settings import Settings

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Muon's quintic: it takes any singular value in 0..1, but the smallest, to 0.7..1.2 in five steps."""


def make_optimizer(network: nn.Module, settings: Settings, steps: int) -> tuple[SGD, OneCycleLR]:
    """SGD with Nesterov momentum on a one-cycle schedule (Smith & Topin, 2018, https://arxiv.org/abs/1708.07120).

    The rate rises over a fifth of the steps and falls to nothing over the rest, both in a straight line.
    Weight decay is kept off biases and norms: there it only shrinks the scale (He et al., 2018,
    https://arxiv.org/abs/1812.01187). Biases may learn at a rate of their own, settings.bias_rate times the
    kernels': in short runs they are what lags behind (Page, 2019, https://github.com/davidcpage/cifar10-fast).
    With a settings.muon_rate, Muon trains the kernels of which _dense_kernels() tells, at that rate.
    """
    dense = {id(kernel) for kernel in _dense_kernels(network)} if settings.muon_rate else set()
    turned, kernels, biases, scales = [], [], [], []
    for name, parameter in network.named_parameters():
        if id(parameter) in dense:
            turned.append(parameter)
        else:
            group = kernels if parameter.ndim > 1 else biases if name.endswith("bias") else scales
            group.append(parameter)
    rate = settings.learning_rate
    groups = [
        {"params": kernels, "lr": rate, "weight_decay": settings.weight_decay},
        {"params": scales, "lr": rate, "weight_decay": 0.0},
        {"params": biases, "lr": rate * settings.bias_rate, "weight_decay": 0.0},
    ]
    if turned:
        groups.append({"params": turned, "lr": settings.muon_rate, "weight_decay": 0.0, "turned": True})
        optimizer = Muon(groups, momentum=0.9, nesterov=True)
    else:
        optimizer = SGD(groups, momentum=0.9, nesterov=True, fused=True)
    scheduler = OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=max(steps, 2),
        pct_start=0.2,
        anneal_strategy="linear",
        cycle_momentum=False,
        final_div_factor=1e4,
    )
    return optimizer, scheduler


def _dense_kernels(network: nn.Module) -> list[Tensor]:
    """Of convolutions across channels, without a bias, outside of O: a norm behind each undoes its length."""
    return [
        layer.weight
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.bias is None
        and not name.startswith("O.")
    ]


class Muon(SGD):
    """SGD, but for groups that are marked as "turned": of those, each kernel is turned by Muon.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes the momentum of a kernel, as a
    matrix (out_channels, the rest), orthogonal before it is a step, so that the many directions in which the
    gradient is small count as much as the few in which it is large. As in his airbench
    (https://github.com/KellerJordan/cifar10-airbench) kernels keep a length, the root of their out_channels.
    The step has the same length times the rate, which thus is the part of its length that a kernel turns by.
    PyTorch's own, torch.optim.Muon since 2.9, takes parameters that are matrices already, and no others.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; after it, turned kernels have no gradient any more. Returns what `closure` does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for kernel in group["params"] if group.get("turned") else ():
                if kernel.grad is not None:
                    self._turn(kernel, group["lr"], group["momentum"])
                    kernel.grad = None  # SGD passes over those.
        super().step()
        return loss

    def _turn(self, kernel: Tensor, rate: float, momentum: float) -> None:
        state = self.state[kernel]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(kernel)
        average = state["momentum_buffer"].mul_(momentum).add_(kernel.grad)
        direction = kernel.grad.add(average, alpha=momentum)  # Nesterov's
        step = orthogonalised(direction.flatten(1)).view(kernel.shape)
        length = len(kernel) ** 0.5
        kernel.mul_(length / kernel.norm())
        kernel.sub_(step * (rate * length / step.norm().clamp(min=1e-12)))


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix of the same singular vectors whose singular values are about 1, 0.7 to 1.2; 0 stays 0."""
    if len(matrix) > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    a, b, c = NEWTON_SCHULZ
    result = matrix / matrix.norm().clamp(min=1e-12)
    for _ in range(5):
        gram = result @ result.T
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result
