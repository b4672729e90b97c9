"""Claims about what a training is known by: one that is carried elsewhere is the same one."""

from commands import REPOSITORY
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from distill.verbs.learning.fitting import _training


def known_by(fastest, *overrides):
    """What CIFAR-10's recipe is known by, and its precision, where some precision is fastest."""
    OmegaConf.register_new_resolver("fastest_precision", lambda _: fastest, replace=True)
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        cfg = compose("train", ["experiment=cifar10", "data.root=x", *overrides])
    return _training(cfg), cfg.trainer.precision


def test_the_fastest_precision_is_the_same_wish_on_every_processor():
    (here, low), (there, high) = known_by("bf16-mixed"), known_by("32-true")
    assert (low, high) == ("bf16-mixed", "32-true")
    assert here == there
    asked = [known_by("x", f"trainer.precision={own}")[0] for own in ("16-true", "32-true")]
    assert asked[0] != asked[1]
    assert here not in asked


def test_a_training_is_known_by_its_settings():
    before, _ = known_by("32-true")
    for other in ("trainer.max_epochs=7", "optimizer.lr=0.3", "scheduler=cosine", "batch_size=9"):
        assert known_by("32-true", other)[0] != before
