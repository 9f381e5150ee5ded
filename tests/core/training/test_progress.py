"""Progress over the epochs, and when a trial ends."""

from __future__ import annotations

from amc_core.config import TrialConfig
from amc_core.training.progress import BestEpoch, Progress, is_exhausted, protected_epochs


def after(config: TrialConfig, *epochs: tuple[float, float]) -> Progress:
    progress = Progress()
    for combined_acc, loss in epochs:
        progress = progress.after_epoch(config, combined_acc=combined_acc, loss=loss)
    return progress


def test_the_best_epochs_by_accuracy_and_by_loss_may_differ() -> None:
    # The 2025 research log's iconic-serenity-164: the highest accuracy came five epochs after the lowest loss.
    progress = after(TrialConfig(), (0.4, 1.0), (0.45, 0.9), (0.47, 0.95))
    assert (progress.combined_acc, progress.loss) == (BestEpoch(3, 0.47), BestEpoch(2, 0.9))
    assert progress.improved() == ("combined_acc",)
    assert progress.selected(TrialConfig()).epoch == 3
    assert progress.selected(TrialConfig(select_by="loss")).epoch == 2


def test_of_equal_epochs_the_earliest_is_the_best() -> None:
    progress = after(TrialConfig(), (0.4, 1.0), (0.4, 1.0))
    assert (progress.combined_acc.epoch, progress.loss.epoch) == (1, 1)
    assert progress.improved() == ()


def test_a_trial_ends_by_patience_or_by_its_epochs() -> None:
    config = TrialConfig(epochs=4, patience=2, min_cycles=0)
    assert Progress().natural_end(config) is None
    assert after(config, (0.4, 1), (0.3, 1)).natural_end(config) is None
    assert after(config, (0.4, 1), (0.3, 1), (0.3, 1)).natural_end(config) == "patience"
    assert after(config, (0.1, 1), (0.2, 1), (0.3, 1), (0.4, 1)).natural_end(config) == "completed"


def test_a_plateau_is_not_counted_within_the_warmup() -> None:
    config = TrialConfig(lr_schedule="plateau", plateau_patience=0, warmup_epochs=3)
    progress = after(config, *[(0.1, 1.0)] * 3)
    assert progress.plateau.reductions == 0
    assert after(config, *[(0.1, 1.0)] * 5).plateau.reductions == 1


def test_progress_survives_its_mapping() -> None:
    progress = after(TrialConfig(), (0.4, 1.0), (0.3, 0.9))
    assert Progress.from_mapping(progress.to_mapping()) == progress
    assert Progress.from_mapping(Progress().to_mapping()) == Progress()


def test_on_another_split_no_epoch_is_the_best_one_and_the_learning_rate_stays() -> None:
    config = TrialConfig(lr_schedule="plateau", plateau_patience=0, patience=1, min_cycles=0, epochs=9)
    moved = after(config, (0.9, 0.1), (0.8, 0.2)).on_another_split()
    assert (moved.epoch, moved.combined_acc, moved.loss) == (2, BestEpoch(), BestEpoch())
    assert (moved.plateau.reductions, moved.plateau.best, moved.plateau.bad_epochs) == (1, None, 0)
    assert moved.natural_end(config) is None, "patience has nothing to count from"
    worse = moved.after_epoch(config, combined_acc=0.1, loss=2.0)
    assert worse.improved() == ("combined_acc", "loss")
    assert worse.natural_end(config) is None
    assert worse.after_epoch(config, combined_acc=0.1, loss=2.0).natural_end(config) == "patience"


def test_patience_never_ends_a_trial_inside_the_first_cycles() -> None:
    config = TrialConfig(patience=3, min_cycles=2, epochs_per_cycle=10)
    assert not any(is_exhausted(config, epoch=epoch, best_epoch=1) for epoch in range(1, 20))
    assert is_exhausted(config, epoch=20, best_epoch=1)


def test_patience_counts_epochs_since_the_best_one() -> None:
    # The 2025 research log's playful-puddle-227: best at 16, patience 50, cycles of 25, ended at 66.
    config = TrialConfig(patience=50, min_cycles=2, epochs_per_cycle=25)
    assert not is_exhausted(config, epoch=65, best_epoch=16)
    assert is_exhausted(config, epoch=66, best_epoch=16)


def test_without_patience_a_trial_uses_all_its_epochs() -> None:
    assert not is_exhausted(TrialConfig(patience=None), epoch=10_000, best_epoch=1)


def test_warmup_is_protected_too_and_a_constant_rate_has_no_cycles() -> None:
    assert protected_epochs(TrialConfig(warmup_epochs=5, min_cycles=1, epochs_per_cycle=25)) == 25
    assert protected_epochs(TrialConfig(warmup_epochs=30, min_cycles=1, epochs_per_cycle=25)) == 30
    assert protected_epochs(TrialConfig(lr_schedule="constant", warmup_epochs=5)) == 5
    assert protected_epochs(TrialConfig(lr_schedule="cosine", epochs=30)) == 30
    assert protected_epochs(TrialConfig(lr_schedule="cosine", epochs=30, warmup_epochs=5, min_cycles=0)) == 5
