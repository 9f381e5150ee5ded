"""What a trial remembers from epoch to epoch."""

from __future__ import annotations

from amc_core.config import TrialConfig
from amc_core.training.progress import Best, Standing


def after(config: TrialConfig, *epochs: tuple[float, float]) -> Standing:
    standing = Standing()
    for combined_acc, loss in epochs:
        standing = standing.after_epoch(config, combined_acc=combined_acc, loss=loss)
    return standing


def test_the_best_epochs_by_accuracy_and_by_loss_are_told_apart() -> None:
    # RUNLOG's iconic-serenity-164: the highest accuracy came five epochs after the lowest loss.
    standing = after(TrialConfig(), (0.4, 1.0), (0.45, 0.9), (0.47, 0.95))
    assert (standing.combined_acc, standing.loss) == (Best(3, 0.47), Best(2, 0.9))
    assert standing.improved() == ("combined_acc",)
    assert standing.selected(TrialConfig()).epoch == 3
    assert standing.selected(TrialConfig(select_by="loss")).epoch == 2


def test_of_equal_epochs_the_earliest_is_the_best() -> None:
    standing = after(TrialConfig(), (0.4, 1.0), (0.4, 1.0))
    assert (standing.combined_acc.epoch, standing.loss.epoch) == (1, 1)
    assert standing.improved() == ()


def test_a_trial_ends_by_patience_or_by_its_epochs() -> None:
    config = TrialConfig(epochs=4, patience=2, min_cycles=0)
    assert Standing().natural_end(config) is None
    assert after(config, (0.4, 1), (0.3, 1)).natural_end(config) is None
    assert after(config, (0.4, 1), (0.3, 1), (0.3, 1)).natural_end(config) == "patience"
    assert after(config, (0.1, 1), (0.2, 1), (0.3, 1), (0.4, 1)).natural_end(config) == "completed"


def test_a_plateau_is_not_counted_within_the_warmup() -> None:
    config = TrialConfig(lr_schedule="plateau", plateau_patience=0, warmup_epochs=3)
    standing = after(config, *[(0.1, 1.0)] * 3)
    assert standing.plateau.reductions == 0
    assert after(config, *[(0.1, 1.0)] * 5).plateau.reductions == 1


def test_a_standing_survives_its_mapping() -> None:
    standing = after(TrialConfig(), (0.4, 1.0), (0.3, 0.9))
    assert Standing.from_mapping(standing.to_mapping()) == standing
    assert Standing.from_mapping(Standing().to_mapping()) == Standing()


def test_on_another_split_no_epoch_is_the_best_one_and_the_learning_rate_stays() -> None:
    config = TrialConfig(lr_schedule="plateau", plateau_patience=0, patience=1, min_cycles=0, epochs=9)
    moved = after(config, (0.9, 0.1), (0.8, 0.2)).on_another_split()
    assert (moved.epoch, moved.combined_acc, moved.loss) == (2, Best(), Best())
    assert (moved.plateau.reductions, moved.plateau.best, moved.plateau.bad_epochs) == (1, None, 0)
    assert moved.natural_end(config) is None, "patience has nothing to count from"
    worse = moved.after_epoch(config, combined_acc=0.1, loss=2.0)
    assert worse.improved() == ("combined_acc", "loss")
    assert worse.natural_end(config) is None
    assert worse.after_epoch(config, combined_acc=0.1, loss=2.0).natural_end(config) == "patience"
