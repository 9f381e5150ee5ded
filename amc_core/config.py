"""TrialConfig: everything that decides what one trial computes.

A field has the same name as a key of a sweep YAML, a key of ``wandb.config`` and a flag of ``amc-train``. This module
is free of torch, so that checking a sweep file is quick.
"""

from __future__ import annotations

import ast
import difflib
import math
import shlex
from collections.abc import Callable, Mapping, Set
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_type_hints

from amc_core.modulations import FILE_CLASSES, LABEL_SETS, read_label_set
from amc_sweeps.number_formats import quoted, shortened

# Names of torchvision and of the 2025 research log (sweeps/recorded); any other name must be timm's own.
MODEL_ALIASES: Mapping[str, str] = {
    "vit_b_16": "vit_base_patch16_224",
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_tiny": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
}

# Losses that can train one number instead of a class for every SNR level.
REGRESSION_LOSSES: frozenset[str] = frozenset({"ordinal", "smooth_l1", "l1"})

# The largest seed of torch's generators and of JSON readers.
_LARGEST_SEED = 2**63 - 1

# Networks for samples along time, with the representation that each takes. All other networks take images.
SIGNAL_NETWORKS: Mapping[str, str] = {
    "iq_convnet": "iq",
    "lstm2": "amplitude_phase",
    "gru2": "iq",
    "petcgdnn": "iq",
    "mcldnn": "iq",
    "iq_resnet": "iq",
    "iq_transformer": "iq",
}
SIGNAL_REPRESENTATIONS: frozenset[str] = frozenset(SIGNAL_NETWORKS.values())

# Networks with LSTM or GRU layers.
RECURRENT_NETWORKS: frozenset[str] = frozenset({"lstm2", "gru2", "petcgdnn", "mcldnn"})

# A key that is no field: its value names several fields at once, see expand_variant.
VARIANT = "variant"
VARIANT_EXAMPLE = "model_type=lstm2 representation=amplitude_phase"

# Networks of amc_core itself; any other name is one of timm's.
OWN_NETWORKS: tuple[str, ...] = ("amc_convnet", *SIGNAL_NETWORKS)


class ConfigError(ValueError):
    """A configuration that a trial refuses; ``problems`` holds one sentence for every violation."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class FieldSpec:
    """The values that one field accepts; flags, checks and documentation come from it."""

    name: str
    kind: Literal["str", "int", "float", "bool", "fractions"]
    default: Any
    help: str
    choices: tuple[Any, ...] = ()  # allowed values; empty: any of the kind and range
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    optional: bool = False  # null is a value
    words: tuple[str, ...] = ()  # allowed besides numbers, such as auto
    aliases: Mapping[str, str] = field(default_factory=dict)  # old word -> current word
    read: Callable[[str], str] | None = None  # returns the normal form of other text; ValueError: what is wrong with it
    other_text: str = ""  # what ``read`` accepts, in a few words
    other_flag: str = ""  # a second name of the flag
    formerly: Any = None  # what trials did before the field existed, where that is not the default

    def allowed(self) -> str:
        """Return the accepted values in a few words."""
        if self.choices:
            text = ", ".join(map(str, self.choices))
        elif self.kind == "fractions":
            text = "three fractions (train, val, test) that sum to 1, such as [0.8, 0.1, 0.1]"
        elif self.kind == "bool":
            text = "true, false"
        elif self.kind == "str":
            text = "text"
        else:
            text = "a whole number" if self.kind == "int" else "a number"
            if self.minimum is not None:
                text += f" {'>' if self.exclusive_minimum else '>='} {self.minimum:g}"
            if self.maximum is not None:
                text += f"{' and' if self.minimum is not None else ''} <= {self.maximum:g}"
        other = [self.other_text] if self.other_text else []
        return " or ".join([text, *self.words, *other, *(["null"] if self.optional else [])])


def _field(default: Any, help_text: str, **spec: Any) -> Any:
    return field(default=default, metadata={"help": help_text, **spec})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialConfig:
    """One trial's choices. A default is the most successful setting of the 2025 research log, if the log has one."""

    # data
    data: str = _field("data/GOLD_XYZ_OSC.0001_1024.hdf5", "HDF5 file in the RadioML 2018.01A layout")
    label_set: str = _field(
        "digital17",
        "which modulations are classes; file: all that have frames in the data file",
        choices=(*LABEL_SETS, FILE_CLASSES),
        read=read_label_set,
        other_text="a list of classes such as BPSK,QPSK",
        other_flag="classes",
    )
    snr_min_db: int = _field(0, "lowest SNR level that is used, dB", minimum=-20, maximum=30)
    snr_max_db: int = _field(30, "highest SNR level that is used, dB", minimum=-20, maximum=30)
    split: tuple[float, float, float] = _field(
        (0.8, 0.1, 0.1), "fractions of every cell (modulation and SNR) for train, val, test"
    )
    split_seed: int = _field(0, "seed of the split; part of its fingerprint", minimum=0, maximum=_LARGEST_SEED)
    storage: str = _field("auto", "where frames are kept", choices=("auto", "memmap", "ram", "ram_float16", "device"))

    # input
    representation: str = _field(
        "constellation",
        "what the model sees of a frame",
        choices=("constellation", "constellation_psd", "synced", "iq", "amplitude_phase"),
    )
    image_size: int = _field(64, "side of the image, pixels", minimum=16, maximum=224)
    histogram_range: float | str = _field(
        2.5,
        "half width of the constellation at unit power; auto: each frame's own extent, which loses its scale",
        minimum=0,
        exclusive_minimum=True,
        words=("auto",),
    )
    histogram_norm: str = _field("none", "per-image normalisation; max hides the SNR", choices=("none", "max"))
    carrier_range: float = _field(
        1 / 1600,
        "largest carrier offset that representation synced removes, cycles per sample",
        minimum=0,
        maximum=1 / 64,
        exclusive_minimum=True,
    )
    augment: bool = _field(
        False, "change training frames at random: phase, start, a small carrier offset, mirrored spectrum"
    )

    # model
    model_type: str = _field(
        "resnet50",
        "timm name, an alias such as vit_b_16, or amc_convnet, for images; for representation iq "
        "iq_convnet, gru2, petcgdnn, mcldnn, iq_resnet or iq_transformer; for amplitude_phase lstm2",
    )
    pretrained: bool = _field(False, "start from ImageNet weights (fetched from a hub)")
    snr_layer: str = _field(
        "standard",
        "head of the SNR task",
        choices=("standard", "bottleneck_64", "bottleneck_128", "regression"),
    )
    dropout: float = _field(
        0.5, "dropout before both heads; mcldnn and iq_resnet have it one layer earlier, too", minimum=0, maximum=0.95
    )

    # loss
    snr_loss: str = _field(
        "cross_entropy",
        "loss of the SNR task",
        choices=("cross_entropy", "ordinal", "smooth_l1", "l1", "d2", "inverse_d2"),
    )
    snr_loss_alpha: float = _field(0.5, "weight of the penalty of d2 and inverse_d2", minimum=0)
    snr_loss_scale: str = _field(
        "unit",
        "scale of distances: unit has a maximum of 1, levels counts steps between levels",
        choices=("unit", "levels"),
        aliases={"runlog": "levels"},
    )
    snr_target_spread: float = _field(
        0.0,
        "standard deviation of a soft SNR target over neighbouring levels, in steps between levels; for cross_entropy, "
        "d2 and inverse_d2; 0: the true level alone",
        minimum=0,
        maximum=10,
    )
    task_weighting: str = _field("kendall", "how the two losses are weighted", choices=("kendall", "fixed"))
    task_weight_mod: float = _field(0.5, "fixed weight of the modulation loss; SNR has the rest", minimum=0, maximum=1)

    # optimisation
    batch_size: int = _field(
        512, "frames per optimiser step; an incomplete last batch is left out", minimum=1, maximum=65536
    )
    micro_batch_size: int | str | None = _field(
        "auto",
        "frames per forward pass, by which batch norm normalises; gradients accumulate; auto: as many as fit into the "
        "GPU, null: the whole batch",
        minimum=1,
        words=("auto",),
    )
    base_lr: float = _field(1.0e-6, "lowest learning rate of a cycle", minimum=0, exclusive_minimum=True)
    max_lr: float = _field(5.0e-4, "highest learning rate of the first cycle", minimum=0, exclusive_minimum=True)
    lr_schedule: str = _field(
        "triangular2",
        "how the learning rate changes (cosine: from max_lr down to base_lr over all epochs; constant: max_lr; "
        "plateau: max_lr, reduced when select_by stops improving)",
        choices=("triangular2", "cosine", "constant", "plateau"),
    )
    plateau_factor: float = _field(
        0.5, "factor by which a plateau reduces the learning rate", minimum=0, maximum=0.99, exclusive_minimum=True
    )
    plateau_patience: int = _field(5, "epochs without improvement of select_by before a reduction", minimum=0)
    epochs_per_cycle: int = _field(25, "length of one triangular2 cycle, epochs", minimum=2)
    warmup_epochs: int = _field(0, "epochs over which the schedule rises from base_lr", minimum=0)
    weight_decay: float = _field(1.0e-4, "AdamW's decoupled weight decay", minimum=0)
    grad_clip_norm: float | None = _field(
        None, "largest gradient norm; null: no clipping", minimum=0, exclusive_minimum=True
    )
    epochs: int = _field(100, "largest number of passes over the training frames", minimum=1)

    # stopping
    patience: int | None = _field(
        25, "epochs without improvement of select_by that end the trial; null: never", minimum=1
    )
    min_cycles: int = _field(
        1, "learning-rate cycles that patience never interrupts; cosine is one cycle of all epochs", minimum=0
    )
    select_by: str = _field(
        "combined_acc", "validation value that picks the checkpoint", choices=("combined_acc", "loss")
    )

    # validation
    batch_norm_frames: int = _field(
        8192,
        "training frames that renew batch norm's statistics before each validation; 0: they lag behind the weights",
        minimum=0,
        formerly=0,
    )
    ema_decay: float = _field(
        0.0,
        "share of the averaged weights that an optimiser step keeps, such as 0.999; validation, checkpoints and test "
        "use the average; 0: no average",
        minimum=0,
        maximum=0.99999,
    )

    # curriculum
    curriculum: bool = _field(False, "let SNR levels join from the highest downwards")
    curriculum_mode: str = _field(
        "sliding",
        "levels that have not joined: sliding trains on them with a quarter of the full weight, strict not at all",
        choices=("sliding", "strict"),
    )
    curriculum_window: int = _field(3, "stages until a joined level has its full weight", minimum=1)
    curriculum_epochs_per_stage: int = _field(1, "epochs between two levels that join", minimum=1)

    # machine
    seed: int = _field(0, "seed of weights, shuffling and dropout", minimum=0, maximum=_LARGEST_SEED)
    amp: bool = _field(True, "mixed precision on CUDA")
    compile: bool = _field(
        False,
        "torch.compile a step, from frames to losses; on CUDA with CUDA graphs; recurrent networks stay uncompiled",
    )

    # start
    init_from: str | None = _field(None, "checkpoint, or run folder, whose weights start a new trial")
    resume_from: str | None = _field(None, "checkpoint, or run folder, to continue exactly")
    allow_split_change: bool = _field(
        False, "start from weights that were trained on another split or, with init_from, another input"
    )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TrialConfig:
        """Build a configuration from YAML, ``wandb.config`` or flag values, a variant among them.

        Raises:
            ConfigError: with all violations: unknown names, wrong types, values out of range, and combinations that
                cannot work.
        """
        problems: list[str] = []
        checked: dict[str, Any] = {}
        try:
            values = expand_variant(values)
        except ConfigError as error:
            problems, values = error.problems, {name: value for name, value in values.items() if name != VARIANT}
        for name, value in values.items():
            if name not in FIELDS:
                problems.append(unknown_field(name))
                continue
            normalised, problem = check_value(name, value)
            if problem is None:
                checked[name] = normalised
            else:
                problems.append(problem)
        config = cls(**checked)
        problems.extend(_combinations(config, names=checked.keys()))
        if problems:
            raise ConfigError(problems)
        return config

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON types, ready for ``wandb.config`` and YAML."""
        mapping = asdict(self)
        mapping["split"] = list(self.split)
        return mapping


def unknown_field(name: str) -> str:
    """Return a message that no field has this name, with the nearest name."""
    name = shortened(name)
    other_flags = {spec.other_flag: [spec.name] for spec in FIELDS.values() if spec.other_flag}
    matches = other_flags.get(name) or difflib.get_close_matches(name, FIELDS, n=1)
    hint = f"; did you mean {matches[0]}?" if matches else f"; known: {', '.join(FIELDS)}"
    return f"{name}: no such parameter{hint}"


def check_value(name: str, value: Any) -> tuple[Any, str | None]:
    """Return (normalised value, None), or (None, the problem in one sentence)."""
    spec, value = FIELDS[name], current_value(name, value)
    refusal = f"{name}: {quoted(value)} is not allowed; allowed: {spec.allowed()}"
    if value is None:
        return (None, None) if spec.optional else (None, refusal)
    if isinstance(value, str) and value in spec.words:
        return value, None
    if spec.kind == "fractions":
        return _fractions(name, value, spec)
    if spec.kind == "bool":
        return (value, None) if isinstance(value, bool) else (None, refusal)
    if spec.kind == "str":
        if spec.read is not None and isinstance(value, str):
            return _read(spec, value, refusal)
        ok = isinstance(value, str) and value != "" and (not spec.choices or value in spec.choices)
        return (value, None) if ok else (None, refusal + _nearest(value, spec.choices))
    if isinstance(value, str):
        return None, refusal + _number_in_text(name, value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None, refusal
    if spec.kind == "int" and value != int(value):
        return None, refusal
    too_low = spec.minimum is not None and (value <= spec.minimum if spec.exclusive_minimum else value < spec.minimum)
    if too_low or (spec.maximum is not None and value > spec.maximum):
        return None, refusal
    return (int(value) if spec.kind == "int" else float(value)), None


def _read(spec: FieldSpec, value: str, refusal: str) -> tuple[str | None, str | None]:
    assert spec.read is not None
    try:
        return spec.read(value), None
    except ValueError as error:
        return None, f"{refusal}; {error}{_nearest(value, spec.choices)}"


def current_value(name: str, value: Any) -> Any:
    """Return the current word for an old one; other values stay as they are."""
    return FIELDS[name].aliases.get(value, value) if name in FIELDS and isinstance(value, str) else value


def parse_flag(name: str, text: str) -> Any:
    """Return a command-line value as the field's type; text that cannot be read stays text, which check_value refuses.

    ``1e-4`` is a number here, although PyYAML reads it as a string.
    """
    spec = FIELDS[name]
    if spec.optional and text.lower() in {"none", "null"}:
        return None
    if spec.kind == "bool":
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), text)
    if spec.kind == "fractions":
        parts = text.strip("[]() ").split(",")
        try:
            return [float(part) for part in parts]
        except ValueError:
            return text
    if spec.kind in {"int", "float"}:
        for read in (int, float) if spec.kind == "int" else (float,):  # 1e3 and 128.0 are whole numbers too
            try:
                return read(text)
            except ValueError:
                continue
    return text


def read_variant(value: Any) -> dict[str, Any]:
    """Return the fields that a variant names, with unchecked values.

    >>> read_variant("model_type=lstm2 representation=amplitude_phase max_lr=1e-3")
    {'model_type': 'lstm2', 'representation': 'amplitude_phase', 'max_lr': 0.001}

    Args:
        value: a mapping of fields to values, or text: NAME=VALUE several times, a value with blanks in quotes.

    Raises:
        ConfigError: it is something else, or names a variant itself.
    """
    problem = ConfigError(
        [f"{VARIANT}: {value!r:.200} is not allowed; allowed: text such as {VARIANT_EXAMPLE!r}, or a mapping of fields"]
    )
    if isinstance(value, str) and value.startswith("{"):  # how wandb's agent writes a mapping as a flag
        try:
            value = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            raise problem from None
    if isinstance(value, Mapping) and value and all(isinstance(name, str) and name != VARIANT for name in value):
        return dict(value)
    if not isinstance(value, str):
        raise problem
    try:
        pairs = [word.partition("=") for word in shlex.split(value)]
    except ValueError:  # a quote that nobody closes
        raise problem from None
    names = [name for name, _, _ in pairs]
    is_whole = bool(pairs) and all(equals and name for name, equals, _ in pairs)
    if not is_whole or VARIANT in names or len(set(names)) < len(names):
        raise problem
    return {name: parse_flag(name, text) if name in FIELDS else text for name, _, text in pairs}


def variant_text(settings: Mapping[str, Any]) -> str:
    """Return settings as the text of a variant, from which ``read_variant`` returns them.

    >>> variant_text({"max_lr": 0.001, "patience": None, "augment": True})
    'max_lr=0.001 patience=null augment=true'
    """
    words = {None: "null", True: "true", False: "false"}
    texts = (
        (name, words[value] if value is None or isinstance(value, bool) else value) for name, value in settings.items()
    )
    return " ".join(shlex.quote(f"{name}={text}") for name, text in texts)


def expand_variant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with the fields of their variant in its place; without a variant they stay as they are.

    Raises:
        ConfigError: the variant cannot be read, or names a field that has another value beside it.
    """
    if VARIANT not in values:
        return dict(values)
    others = {name: value for name, value in values.items() if name != VARIANT}
    fields_of_variant = read_variant(values[VARIANT])
    problems = [
        f"{name}: the variant sets {quoted(value)}, but {quoted(others[name])} is given beside it; leave one out"
        for name, value in fields_of_variant.items()
        if name in others and not is_same(name, value, others[name])
    ]
    if problems:
        raise ConfigError(problems)
    return {**others, **fields_of_variant}


def is_same(name: str, value: Any, other: Any) -> bool:
    """Return whether a field's two values mean the same, such as 1 and 1.0, or one list of classes in two orders."""
    return name in FIELDS and check_value(name, value) == check_value(name, other)


def _nearest(value: Any, choices: tuple[Any, ...]) -> str:
    matches = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _number_in_text(name: str, value: str) -> str:
    """Return how to write a number in YAML, if the text is a number that the field accepts."""
    try:
        number = float(value)
    except ValueError:
        return ""
    if check_value(name, number)[1] is not None:
        return ""
    # YAML 1.1 needs a dot and a signed exponent: PyYAML reads 1e-4 as text and 1.0e-4 as a number.
    mantissa, _, exponent = value.strip().lower().partition("e")
    sign = exponent if exponent[:1] in {"+", "-"} else f"+{exponent}"
    yaml_number = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{sign}" if exponent else value
    if yaml_number == value:
        return f"; it was read as text: write {value} without quotes"
    return f"; YAML reads {value} as text: write {yaml_number}"


def _fractions(name: str, value: Any, spec: FieldSpec) -> tuple[tuple[float, ...] | None, str | None]:
    refusal = f"{name}: {quoted(value)} is not allowed; allowed: {spec.allowed()}"
    if not isinstance(value, list | tuple) or len(value) != 3:
        return None, refusal
    if any(isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part < 1 for part in value):
        return None, refusal
    if not math.isclose(sum(value), 1.0, abs_tol=1e-9):
        return None, f"{refusal} (these sum to {sum(value):g})"
    return tuple(float(part) for part in value), None


def _combinations(config: TrialConfig, names: Set[str]) -> list[str]:
    """Return the problems of values that are allowed alone but not together; ``names`` are the fields that were set."""
    problems = []
    if config.snr_min_db > config.snr_max_db and {"snr_min_db", "snr_max_db"} & names:
        problems.append(f"snr_min_db: {config.snr_min_db} dB lies above snr_max_db = {config.snr_max_db} dB")
    if config.base_lr > config.max_lr and {"base_lr", "max_lr"} & names:
        problems.append(f"base_lr: {config.base_lr:g} lies above max_lr = {config.max_lr:g}")
    if config.warmup_epochs >= config.epochs and {"warmup_epochs", "epochs"} & names:
        problems.append(f"warmup_epochs: {config.warmup_epochs} must be less than epochs = {config.epochs}")
    if isinstance(config.micro_batch_size, int) and config.micro_batch_size > config.batch_size:
        problems.append(f"micro_batch_size: {config.micro_batch_size} exceeds batch_size = {config.batch_size}")
    if config.batch_norm_frames == 1:
        problems.append("batch_norm_frames: 1 frame has no variance; use 2 or more, or 0 to turn the renewal off")
    if config.ema_decay and not config.batch_norm_frames:
        problems.append(
            f"batch_norm_frames: 0 leaves the averaged weights of ema_decay = {config.ema_decay:g} without statistics "
            f"of their own; use {FIELDS['batch_norm_frames'].default}"
        )
    if config.snr_layer == "regression" and config.snr_loss not in REGRESSION_LOSSES:
        allowed = ", ".join(sorted(REGRESSION_LOSSES))
        problems.append(
            f"snr_loss: {config.snr_loss} needs a class per level, snr_layer regression has none; allowed: {allowed}"
        )
    if config.snr_target_spread and config.snr_loss in REGRESSION_LOSSES:
        problems.append(
            f"snr_target_spread: {config.snr_loss} trains a value, which has no soft target; use snr_loss "
            "cross_entropy, d2 or inverse_d2, or snr_target_spread: 0"
        )
    for name in ("histogram_range", "histogram_norm"):
        if (
            config.representation in {"synced", *SIGNAL_REPRESENTATIONS}
            and getattr(config, name) != FIELDS[name].default
        ):
            problems.append(
                f"{name}: {getattr(config, name)} has no meaning for representation {config.representation}; leave it "
                f"at {FIELDS[name].default}"
            )
    if config.representation != "synced" and config.carrier_range != FIELDS["carrier_range"].default:
        problems.append(
            f"carrier_range: {config.carrier_range:g} has no meaning for representation {config.representation}; only "
            "synced looks for the carrier"
        )
    # A value that does not fit the other field's default is refused, too.
    if {"representation", "model_type"} & names:
        problems.extend(_input_problems(config))
    if config.pretrained and config.model_type in OWN_NETWORKS and {"pretrained", "model_type"} & names:
        problems.append(f"pretrained: {config.model_type} has no ImageNet weights; use pretrained: false")
    if config.init_from is not None and config.resume_from is not None:
        problems.append("resume_from: continues a trial, init_from starts a new one; give one of them")
    return problems


def _input_problems(config: TrialConfig) -> list[str]:
    """Return the problem of a network that does not take the representation, with one that fits."""
    takes = SIGNAL_NETWORKS.get(config.model_type)
    if takes is not None and takes != config.representation:
        return [
            f"representation: {config.representation} was given, but model_type {config.model_type} takes {takes}; "
            f"write representation: {takes}"
        ]
    if takes is None and config.representation in SIGNAL_REPRESENTATIONS:
        fitting = [name for name, representation in SIGNAL_NETWORKS.items() if representation == config.representation]
        return [
            f"model_type: {config.model_type} takes images, but representation {config.representation} gives samples; "
            f"networks that take it: {', '.join(fitting)}"
        ]
    return []


def _spec(name: str, hint: Any, default: Any, metadata: Mapping[str, Any]) -> FieldSpec:
    text = getattr(hint, "__name__", str(hint)) if hint in (str, int, float, bool) else str(hint)
    kind: Any = "fractions" if text.startswith("tuple") else text.split(" | ")[0]
    return FieldSpec(name=name, kind=kind, default=default, optional="None" in text, **metadata)


_HINTS = get_type_hints(TrialConfig)
FIELDS: Mapping[str, FieldSpec] = {
    item.name: _spec(item.name, _HINTS[item.name], item.default, item.metadata) for item in fields(TrialConfig)
}


def former_settings(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a trial did before fields existed that its record lacks, where that is not the default."""
    former = {name: spec.formerly for name, spec in FIELDS.items() if spec.formerly is not None}
    if recorded.get("curriculum"):
        former["curriculum_mode"] = "strict"  # without a curriculum the mode means nothing
    return {name: value for name, value in former.items() if name not in recorded}
