"""Claims about teachers in torch: live, averaged, mapped to the data's classes, and cached."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import nn

from distill.deployment.export import export_onnx
from distill.errors import UsageError, UserError, settings_of
from distill.runtime import OnnxModel
from distill.training.models import ImageClassifier, PlainCNN
from distill.training.soft_label_writer import StoreWriter
from distill.training.soft_labels import Recipe, SoftLabelStore
from distill.training.teachers.base import Teacher
from distill.training.teachers.cached import CachedTeacher
from distill.training.teachers.classes import MappedTeacher, class_columns, match_classes
from distill.training.teachers.ensemble import EnsembleTeacher
from distill.training.teachers.live import Answers, TorchTeacher

CLASSES = ("cat", "dog", "owl", "yak")


def classifier(seed, mean=0.3, std=0.4, input_size=None):
    """Make a small network with dropout, its batch statistics unlike those of a new one."""
    torch.manual_seed(seed)
    network = PlainCNN(4, 1, widths=(4, 6), dropout=0.5)
    network.head[1].weight.data *= 9
    model = ImageClassifier(network, [mean], [std], input_size=input_size)
    model.train()(torch.randint(0, 200, (64, 8, 8, 1), dtype=torch.uint8))
    return model


def live(seed, classes=CLASSES, **options):
    return TorchTeacher(classifier(seed, **options), classes)


def members():
    """Make three that differ in weights, normalisation and input size."""
    return [live(0), live(1, mean=0.6, std=0.1), live(2, input_size=(12, 10))]


@pytest.fixture
def images(rng):
    return torch.from_numpy(rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8))


INDEX = torch.tensor([21, 3, 7, 30, 4, 9])


def store(folder, logits, classes=CLASSES):
    recipe = Recipe(
        teacher="the one that was asked",
        data="data",
        classes=classes,
        views={},
        views_version=1,
        num_samples=len(INDEX),
        top_k=None,
        precision="float32",
    )
    writer = StoreWriter(folder, recipe, INDEX.numpy(), len(logits))
    writer.prepare()
    for view, block in writer.missing_blocks():
        writer.write(view, block, logits[view])
    writer.finish()
    return SoftLabelStore(folder, recipe)


KINDS = {
    "live": lambda _: live(0),
    "resized": lambda _: live(0, input_size=(12, 10)),
    "ensemble": lambda _: EnsembleTeacher(members(), [1, 2, 5], CLASSES),
    "mapped": lambda _: MappedTeacher(live(0), np.array([2, 0]), ("owl", "cat")),
    "cached": lambda folder: CachedTeacher(store(folder, np.ones((1, 6, 4), np.float32))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_teacher_ever_trains_or_wants_gradients(kind, images, tmp_path):
    teacher = KINDS[kind](tmp_path)
    nn.ModuleDict({"teacher": teacher}).train()  # as a trainer asks its module
    first, second = (teacher(images, INDEX).logits for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not first.requires_grad
    assert first.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_fingerprint_is_the_same_for_a_teacher_made_again(kind, tmp_path):
    first, second = (KINDS[kind](tmp_path) for _ in range(2))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("kind", ["live", "resized", "ensemble", "mapped"])
def test_a_folded_teacher_answers_the_same(kind, images, tmp_path):
    teacher = KINDS[kind](tmp_path)
    expected = teacher(images, INDEX).logits
    torch.testing.assert_close(
        teacher.folded()(images, INDEX).logits, expected, rtol=1e-4, atol=1e-4
    )


def test_a_live_fingerprint_changes_with_weight_or_size_and_outlives_a_file(tmp_path):
    teachers = {
        "as it is": live(0),
        "mean": live(0, mean=0.31),
        "std": live(0, std=0.41),
        "size": live(0),
        "other size": live(0),
        "bias": live(0),
        "batch statistics": live(0),
    }
    teachers["size"].model.input_size = (12, 10)  # the same weights, other answers
    teachers["other size"].model.input_size = (10, 12)
    teachers["bias"].model.network.head[1].bias[2] += 1e-6
    teachers["batch statistics"].model.network.features[0][1].running_var[1] *= 1.001
    prints = {name: teacher.fingerprint for name, teacher in teachers.items()}
    assert len(set(prints.values())) == len(teachers)
    torch.save(teachers["as it is"].model.state_dict(), tmp_path / "weights.pt")
    loaded = live(5)
    assert loaded.fingerprint not in prints.values()
    loaded.model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert loaded.fingerprint == prints["as it is"]


def test_a_teacher_normalises_and_resizes_as_it_was_trained(images):
    model = ImageClassifier(nn.Identity(), [0.25], [0.5], input_size=(5, 12))
    found = TorchTeacher(model)(images, INDEX).logits
    for image, seen in zip(images.numpy(), found.numpy(), strict=True):
        normalised = ((image[:, :, 0] / 255 - 0.25) / 0.5).astype(np.float32)
        expected = Image.fromarray(normalised).resize((12, 5), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(seen[0], np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("weights", [None, [1, 2, 5], [0.0, 0.7, 0.3], [1e-3, 0, 0]])
def test_ensemble_logits_are_the_log_of_the_weighted_mean_of_softmaxes(weights, images):
    teachers = members()
    answer = EnsembleTeacher(teachers, weights, CLASSES)(images, INDEX)
    with torch.no_grad():
        each = np.stack([teacher.model(images).double().numpy() for teacher in teachers])
    expected = np.log(np.average(softmax(each, axis=2), axis=0, weights=weights))
    np.testing.assert_allclose(answer.logits, expected, atol=1e-5)
    assert answer.member_logits is not None
    np.testing.assert_allclose(answer.member_logits, each, atol=1e-5)
    assert np.abs(each[0] - each[1]).min() > 1e-3  # else no weight would tell


@pytest.mark.parametrize(
    "weights",
    [[], [1], [1, 1, 1], [0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1], ["a", 1], 0.5],
)
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(UserError, match=r"2 members.*Mend `teacher\.weights`"):
        EnsembleTeacher([live(0), live(1)], weights)


def test_an_ensemble_of_nobody_is_refused():
    with pytest.raises(UserError, match="each of the 0 members"):
        EnsembleTeacher([])


@pytest.mark.parametrize("asked", ["__call__", "folded", "on_test"])
def test_a_member_is_told_of_its_own_settings_by_what_refuses_its_answers(asked, images):
    class Narrow(Teacher):
        def forward(self, image, index):
            raise UserError("Set `teacher.classes=[...]` or `teacher.weights`; teacher.onnx is it.")

    settings = ["teacher.members.a", "teacher.members.b"]
    ensemble = EnsembleTeacher([live(0), Narrow()], settings=settings)
    ensemble = ensemble if asked == "__call__" else getattr(ensemble, asked)()
    with pytest.raises(UserError, match=r"`teacher\.members\.b\.classes=.*; teacher\.onnx is it"):
        ensemble(images, INDEX)
    alone = EnsembleTeacher([live(0), Narrow()])
    with pytest.raises(UserError, match=r"Set `teacher\.classes="):
        alone(images, INDEX)


def test_settings_of_a_part_are_named_once_in_an_error_of_the_same_kind():
    part = "teacher.members.first"
    with (
        pytest.raises(UsageError) as raised,
        settings_of("teacher", part),
        settings_of("teacher", part),
    ):
        raise UsageError(f"Set `teacher.mean=1`, -p teacher.mean, not `{part}.std`.")
    assert str(raised.value) == f"Set `{part}.mean=1`, -p {part}.mean, not `{part}.std`."
    refusal = UserError("Set `teacher.mean=1`.")
    with pytest.raises(UserError) as raised, settings_of("teacher", "teacher"):
        raise refusal
    assert raised.value is refusal


def test_an_ensembles_fingerprint_knows_members_their_order_and_relative_weights():
    def fingerprint(seeds, weights=None):
        return EnsembleTeacher([live(seed) for seed in seeds], weights).fingerprint

    different = [
        fingerprint((0, 1)), fingerprint((1, 0)), fingerprint((0, 2)), fingerprint((0, 1), (1, 2)),
    ]  # fmt: skip
    assert len(set(different)) == 4
    assert fingerprint((0, 1), (3, 3)) == different[0]
    assert fingerprint((0, 1), (2, 4)) == different[3]


class Silent(Teacher):
    """Knows nothing of the test set."""

    def on_test(self):
        return None


def test_who_answers_for_the_test_set_is_asked_of_the_members(images):
    both, one = EnsembleTeacher(members()[:2]), EnsembleTeacher([live(0), Silent()])
    expected = both(images, INDEX).logits
    torch.testing.assert_close(both.on_test()(images, INDEX).logits, expected)
    assert one.on_test() is None
    assert MappedTeacher(Silent(), np.array([1, 0]), ("a", "b")).on_test() is None
    mapped = MappedTeacher(live(0), np.array([1, 0]), ("a", "b"))
    assert mapped.on_test() is mapped


def test_another_order_of_classes_is_mapped_by_name(images):
    teacher = live(0)
    mapped = match_classes(teacher, ("yak", "cat", "owl", "dog"), drop_classes=False)
    assert mapped.classes == ("yak", "cat", "owl", "dog")
    own, found = teacher(images, INDEX).logits, mapped(images, INDEX).logits
    for name in CLASSES:
        assert torch.equal(found[:, mapped.classes.index(name)], own[:, CLASSES.index(name)])
    reversed_order = match_classes(live(0), CLASSES[::-1], drop_classes=False)
    assert len({t.fingerprint for t in (teacher, mapped, reversed_order)}) == 3


def test_the_same_classes_and_unnamed_ones_are_taken_as_they_are():
    named, unnamed = live(0), live(0, classes=None)
    assert match_classes(named, CLASSES, drop_classes=False) is named
    assert match_classes(unnamed, CLASSES, drop_classes=False) is unnamed
    assert unnamed.classes == CLASSES


def test_dropping_classes_renormalises_the_probabilities_of_the_others(images):
    ensemble = EnsembleTeacher(members(), [1, 2, 5], CLASSES)
    with pytest.raises(UserError, match=r"2 classes but it knows 2 more: `dog`, `owl`.*drop_class"):
        match_classes(ensemble, ("yak", "cat"), drop_classes=False)
    kept = match_classes(ensemble, ("yak", "cat"), drop_classes=True)(images, INDEX)
    whole = softmax(ensemble(images, INDEX).logits.double().numpy(), axis=1)[:, [3, 0]]
    expected = whole / whole.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(kept.logits.numpy(), axis=1), expected, atol=1e-6)
    every = ensemble(images, INDEX).member_logits
    assert torch.equal(kept.member_logits, every[:, :, [3, 0]])


@pytest.mark.parametrize(
    ("teachers", "datas", "message"),
    [
        (("cat", "dog"), ("cat", "dgo"), r"lacks `dgo`. Did you mean `dog`\?"),
        (tuple("abcdefgh"), tuple("12345678"), "lacks `1`, `2`, `3`, `4`, `5` and 3 others"),
        (("cat", "dog", "cat"), ("cat", "dog"), "distinct classes of the teacher but `cat`"),
        (("cat", "dog"), ("cat", "dog", "dog"), "distinct classes of the data but `dog`"),
    ],
)
@pytest.mark.parametrize("drop_classes", [True, False])
def test_class_spaces_that_cannot_be_matched_are_refused(teachers, datas, message, drop_classes):
    with pytest.raises(UserError, match=message):
        class_columns(teachers, datas, drop_classes=drop_classes)


def test_features_pass_through_a_mapping_and_no_ensemble_has_any(images):
    teacher = live(0)
    mapped = match_classes(teacher, CLASSES[::-1], drop_classes=False)
    mapped.tap(["features.1", "features.0"])
    first, second = mapped(images, INDEX).features
    network = teacher.model.network
    normalised = ((images.float() / 255 - 0.3) / 0.4).permute(0, 3, 1, 2)
    torch.testing.assert_close(second, network.features[0](normalised))
    torch.testing.assert_close(first, network.features[1](second))
    with pytest.raises(UserError, match=r"live torch teacher.*EnsembleTeacher"):
        EnsembleTeacher([teacher]).tap(["features.0"])


def test_a_cached_teacher_answers_by_index_from_the_view_that_is_shown(images, tmp_path, rng):
    logits = rng.normal(0, 4, (2, 6, 4)).astype(np.float32)
    cached = CachedTeacher(store(tmp_path, logits))
    assert cached.classes == CLASSES
    assert cached.fingerprint == "the one that was asked"
    ensemble = EnsembleTeacher([MappedTeacher(cached, np.array([3, 1]), ("yak", "dog"))])
    for view in (1, 0, 3):  # of two, shown in turn
        ensemble.show_view(view)
        found = cached(images[:3], torch.tensor([9, 21, 30])).logits
        np.testing.assert_allclose(found, logits[view % 2][[5, 0, 3]], rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match="1 of 2 are missing, such as index 8"):
        cached(images[:2], torch.tensor([9, 8]))


@pytest.mark.slow
def test_an_ensemble_of_mapped_members_exports_to_onnx(images, tmp_path):
    mapped = [match_classes(member, CLASSES[::-1], drop_classes=False) for member in members()]
    ensemble = EnsembleTeacher(mapped, [1, 0, 5], CLASSES[::-1])
    assert ensemble.computes_in_torch
    assert not EnsembleTeacher([live(0), Silent()]).computes_in_torch
    export_onnx(Answers(ensemble).eval(), (8, 8, 1), tmp_path / "ensemble.onnx")
    found = OnnxModel(tmp_path / "ensemble.onnx").predict(images.numpy())
    np.testing.assert_allclose(found, ensemble(images, INDEX).logits, atol=1e-4)
