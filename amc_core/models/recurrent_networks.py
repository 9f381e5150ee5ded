"""Recurrent networks of the literature for samples along time.

Parameter counts include one linear head of 24 classes, as the sources have it. The weights start as in Keras, which all
sources use.

In names: B frames, C = 2 channels (I and Q, or amplitude and phase), T = 1024 samples, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_core.models.keras_weights import start_as_keras

_WIDTH = 128  # of every recurrent layer


class Lstm2(nn.Module):
    """Amplitude and phase (B, 2, T) to the last state of two LSTM layers (B, 128): 202,776 parameters.

    S. Rajendran et al., "Deep Learning Models for Wireless Signal Classification With Distributed Low-Cost Spectrum
    Sensors", IEEE Trans. Cogn. Commun. Netw. 4 (2018).
    """

    n_features = _WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, _WIDTH, num_layers=2, batch_first=True)
        start_as_keras(self)

    def forward(self, input_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        return last_state(self.lstm, input_BCT)


class Gru2(nn.Module):
    """I and Q (B, 2, T) to the last state of two GRU layers (B, 128): 152,856 parameters.

    D. Hong, Z. Zhang, X. Xu, "Automatic modulation classification using recurrent neural networks", IEEE ICCC 2017.
    """

    n_features = _WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, _WIDTH, num_layers=2, batch_first=True)
        start_as_keras(self)

    def forward(self, input_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        return last_state(self.gru, input_BCT)


class PetCgdnn(nn.Module):
    """I and Q (B, 2, T) to 128 features: 75,340 parameters.

    One linear layer estimates a phase, and the frame is turned back by it. Two convolutions and a GRU follow.

    F. Zhang, C. Luo, J. Xu, Y. Luo, "An Efficient Deep Learning Model for Automatic Modulation Recognition Based on
    Parameter Estimation and Transformation", IEEE Commun. Lett. 25 (2021).
    """

    n_features = _WIDTH

    def __init__(self, n_samples: int) -> None:
        super().__init__()
        self.phase = nn.Linear(2 * n_samples, 1)
        self.both = nn.Conv2d(1, 75, (2, 8))  # over I and Q together
        self.along_time = nn.Conv1d(75, 25, 5)
        self.gru = nn.GRU(25, _WIDTH, batch_first=True)
        start_as_keras(self)

    def forward(self, iq_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        turned_BCT = self._turned_back(iq_BCT)
        map_BDT = functional.relu(self.both(turned_BCT[:, None])).squeeze(2)
        return last_state(self.gru, functional.relu(self.along_time(map_BDT)))

    def _turned_back(self, iq_BCT: Tensor) -> Tensor:
        """Return the frames, turned back by the phase that the first layer estimates, in radians."""
        # In float32: bfloat16 has 8 bits for an angle of several radians.
        with torch.autocast(iq_BCT.device.type, enabled=False):
            iq_BCT = iq_BCT.float()
            angle_B1 = self.phase(iq_BCT.flatten(1))
            cos_B1, sin_B1 = angle_B1.cos(), angle_B1.sin()
            i_BT, q_BT = iq_BCT.unbind(dim=1)
            return torch.stack([i_BT * cos_B1 + q_BT * sin_B1, q_BT * cos_B1 - i_BT * sin_B1], dim=1)


class Mcldnn(nn.Module):
    """I and Q (B, 2, T) to 128 features: 407,876 parameters.

    Convolutions over I and Q together, over I and over Q are joined by another convolution. Two LSTM layers and two
    SELU layers follow. The source has a dropout of 0.5 after each SELU layer; the last one is that of the classifier.

    J. Xu, C. Luo, G. Parr, Y. Luo, "A Spatiotemporal Multi-Channel Learning Framework for Automatic Modulation
    Recognition", IEEE Wireless Commun. Lett. 9 (2020).
    """

    n_features = _WIDTH

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.both = nn.Conv2d(1, 50, (2, 8))
        self.only_i = nn.Conv1d(1, 50, 8)
        self.only_q = nn.Conv1d(1, 50, 8)
        self.after_single = nn.Conv2d(50, 50, (1, 8))
        self.joined = nn.Conv2d(100, 100, (2, 5))
        self.lstm = nn.LSTM(100, _WIDTH, num_layers=2, batch_first=True)
        self.dense = nn.Sequential(
            nn.Linear(_WIDTH, _WIDTH), nn.SELU(), nn.Dropout(dropout), nn.Linear(_WIDTH, _WIDTH), nn.SELU()
        )
        start_as_keras(self)

    def forward(self, iq_BCT: Tensor) -> Tensor:
        """Return the features (B, D)."""
        relu, pad = functional.relu, functional.pad
        # Of an even kernel, Keras pads the smaller half in front ("same"), or all of it ("causal").
        both_BDCT = relu(self.both(pad(iq_BCT[:, None], (3, 4, 0, 1))))
        causal_BCT = pad(iq_BCT, (7, 0))
        single_BDCT = torch.stack([relu(self.only_i(causal_BCT[:, :1])), relu(self.only_q(causal_BCT[:, 1:]))], dim=2)
        single_BDCT = relu(self.after_single(pad(single_BDCT, (3, 4))))
        joined_BDT = relu(self.joined(torch.cat([both_BDCT, single_BDCT], dim=1))).squeeze(2)
        features: Tensor = self.dense(last_state(self.lstm, joined_BDT))
        return features


def last_state(layers: nn.LSTM | nn.GRU, input_BDT: Tensor) -> Tensor:
    """Return the output of the last of several recurrent layers after the last sample: (B, D)."""
    output_BTD: Tensor = layers(input_BDT.transpose(1, 2))[0]
    return output_BTD[:, -1]
