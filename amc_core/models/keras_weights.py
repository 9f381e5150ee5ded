"""Weights as Keras starts with, for networks whose sources use it."""

from __future__ import annotations

import torch
from torch import nn


def start_as_keras(network: nn.Module) -> None:
    """Replace the weights of convolutions, linear and recurrent layers.

    Kernels are uniform: X. Glorot, Y. Bengio, AISTATS 2010. Recurrent matrices are orthogonal: A. Saxe et al., ICLR
    2014. Biases are 0, and that of a forget gate is 1: R. Jozefowicz et al., ICML 2015.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LSTM | nn.GRU):
            _start_recurrent(layer)


def _start_recurrent(layer: nn.LSTM | nn.GRU) -> None:
    for name, parameter in layer.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)
        # torch adds two biases, so one of them has the 1. Its gates are input, forget, cell, output.
        if isinstance(layer, nn.LSTM) and name.startswith("bias_ih"):
            with torch.no_grad():
                parameter[layer.hidden_size : 2 * layer.hidden_size] = 1.0
