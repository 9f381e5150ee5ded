"""A backbone from timm or one of this project's own, with one head for the modulation and one for the SNR.

In names: B frames, X the shape of one frame's input, which is (C, H, W) for images and (2, 1024) for samples, D
features, K classes of a task.
"""

from __future__ import annotations

import contextlib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from amc_core.config import MODEL_ALIASES, OWN_NETWORKS, ConfigError, TrialConfig
from amc_core.data.radioml import FRAME_LENGTH
from amc_core.inputs.representations import CHANNELS, input_shape
from amc_core.models.iq_networks import IqResNet, IqTransformer
from amc_core.models.model_names import similar_models
from amc_core.models.own_networks import AmcConvNet, IqConvNet
from amc_core.models.recurrent_networks import Gru2, Lstm2, Mcldnn, PetCgdnn
from amc_sweeps.number_formats import quoted

_BOTTLENECKS = {"bottleneck_64": 64, "bottleneck_128": 128}


class Classifier(nn.Module):
    """Inputs (B, *X) to the outputs of both tasks.

    The modulation's output is logits (B, n_modulations). The SNR's output is logits (B, n_levels), lowest level first.
    With ``snr_layer`` regression it is one number per frame (B, 1), linear in dB: 0 for the lowest level, 1 for the
    highest. It may leave that range.
    """

    def __init__(
        self, backbone: nn.Module, *, n_features: int, n_modulations: int, n_levels: int, snr_layer: str, dropout: float
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.modulation_head = nn.Linear(n_features, n_modulations)
        self.snr_head = _snr_head(snr_layer, n_features, n_levels)

    def forward(self, input_BX: Tensor) -> tuple[Tensor, Tensor]:
        """Return (modulation logits, SNR output), both in float32 also under autocast.

        bfloat16 has steps of 1/32 near a logit of 8. Equal logits of two levels would always be read as the lower one.
        """
        features_BD = self.dropout(self.backbone(input_BX))
        # Autocast does not know the device meta, which counts memory.
        in_float32 = (
            contextlib.nullcontext() if input_BX.is_meta else torch.autocast(input_BX.device.type, enabled=False)
        )
        with in_float32:
            features_BD = features_BD.float()
            return self.modulation_head(features_BD), self.snr_head(features_BD)


def build_model(config: TrialConfig, *, n_modulations: int, n_levels: int) -> Classifier:
    """Return the network that a configuration names, on the CPU, with weights from torch's global generator.

    Raises:
        ConfigError: timm has no such backbone (the message has similar names), its ImageNet weights cannot be fetched,
            or it cannot take inputs of this shape.
    """
    backbone, n_features = _own_network(config) if config.model_type in OWN_NETWORKS else _timm_network(config)
    return Classifier(
        backbone,
        n_features=n_features,
        n_modulations=n_modulations,
        n_levels=n_levels,
        snr_layer=config.snr_layer,
        dropout=config.dropout,
    )


def _snr_head(snr_layer: str, n_features: int, n_levels: int) -> nn.Module:
    if snr_layer == "standard":
        return nn.Linear(n_features, n_levels)
    if snr_layer == "regression":
        head = nn.Linear(n_features, 1)
        nn.init.constant_(head.bias, 0.5)  # the middle of the range
        return head
    width = _BOTTLENECKS[snr_layer]
    return nn.Sequential(nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_levels))


def _own_network(config: TrialConfig) -> tuple[nn.Module, int]:
    network = _build_own_network(config)
    return network, network.n_features


def _build_own_network(
    config: TrialConfig,
) -> AmcConvNet | IqConvNet | Lstm2 | Gru2 | PetCgdnn | Mcldnn | IqResNet | IqTransformer:
    match config.model_type:
        case "amc_convnet":
            return AmcConvNet(CHANNELS[config.representation])
        case "iq_convnet":
            return IqConvNet()
        case "lstm2":
            return Lstm2()
        case "gru2":
            return Gru2()
        case "petcgdnn":
            return PetCgdnn(FRAME_LENGTH)
        case "mcldnn":
            return Mcldnn(config.dropout)
        case "iq_resnet":
            return IqResNet(FRAME_LENGTH, config.dropout)
        case "iq_transformer":
            return IqTransformer(FRAME_LENGTH)
        case name:
            raise ValueError(f"{name} is in OWN_NETWORKS, but nothing builds it")


def _timm_network(config: TrialConfig) -> tuple[nn.Module, int]:
    name = MODEL_ALIASES.get(config.model_type, config.model_type)
    if not timm.is_model(name):
        raise ConfigError([_unknown_backbone(config.model_type)])
    shape = input_shape(config)
    backbone = _backbone(name, config, shape)
    return backbone, _count_features(backbone, name, shape)


def _backbone(name: str, config: TrialConfig, shape: tuple[int, ...]) -> nn.Module:
    options: dict[str, Any] = {"num_classes": 0, "in_chans": shape[0]}
    try:
        pretrained_cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
            options["img_size"] = config.image_size  # the position embedding of transformers depends on it
        if name.startswith("swin_") and config.image_size < 224:
            options["window_size"] = 4  # 7 divides no token grid below 224 px, so tokens would be padded
        backbone: nn.Module = timm.create_model(name, pretrained=False, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        problem = f"model_type: {name} cannot be built for {shape[0]} x {shape[1]} x {shape[2]} images: {error}"
        raise ConfigError([problem]) from error
    if not config.pretrained:
        return backbone
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # every hub client has its own exceptions
        cause = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        problem = (
            f"pretrained: the ImageNet weights of {name} cannot be loaded ({type(error).__name__}: {cause}); "
            "fetch them once on a machine with network and share its HF_HOME folder, or use pretrained: false"
        )
        raise ConfigError([problem]) from error


def _count_features(backbone: nn.Module, name: str, shape: tuple[int, ...]) -> int:
    """Return the number of features of an image: ``num_features`` is wrong for some backbones (conv heads, pooling)."""
    was_training = backbone.training
    try:
        with torch.no_grad():
            features_BD = backbone.eval()(torch.zeros(2, *shape))
    except (AssertionError, RuntimeError, ValueError) as error:
        problem = (
            f"model_type: {name} cannot take images of {shape[1]} x {shape[2]} pixels: {error}; try another image_size"
        )
        raise ConfigError([problem]) from error
    finally:
        backbone.train(was_training)
    return int(features_BD.shape[1])


def _unknown_backbone(name: str) -> str:
    matches = similar_models(name, timm.list_models())
    hint = f"similar names: {', '.join(matches)}" if matches else "timm.list_models() lists the names"
    return f"model_type: timm has no backbone {quoted(name)}; {hint}"
