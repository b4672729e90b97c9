"""Claims about spaces of students: what is in them, what is drawn, what is refused."""

import pytest

from distill.deployment.search.space import candidates
from distill.errors import UserError

CNN = {"_target_": "distill.training.models.PlainCNN", "_partial_": True}
SPACE = {
    "cnn": {"student": CNN, "grid": {"widths": [[4, 6], [8, 12]], "input_size": [None, [4, 4]]}},
    "mine": {"student": {"_target_": "mine.Net"}},
}


def test_candidates_are_the_products_of_choices_named_by_what_was_chosen():
    found = candidates(SPACE, 40, 0)
    assert [candidate.name for candidate in found] == [
        "cnn widths=4-6",
        "cnn widths=4-6 input_size=4-4",
        "cnn widths=8-12",
        "cnn widths=8-12 input_size=4-4",
        "mine",
    ]
    assert found[1].student == CNN | {"widths": [4, 6], "input_size": [4, 4]}
    assert "input_size" not in found[0].student
    assert found[1].slug == "cnn_widths_4-6_input_size_4-4"


def test_of_a_larger_space_so_many_different_ones_are_drawn_the_same_for_the_same_seed():
    space = {"cnn": {"student": CNN, "grid": {"a": list(range(50)), "b": list(range(50))}}}
    drawn = [[c.name for c in candidates(space, 12, seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 12


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "at least one student but it is empty"),
        ({"cnn": {"student": CNN, "grid": {"widths": []}}}, "at least one student"),
        ({"cnn": [1]}, "`space.cnn` to have a `student`"),
        ({"cnn": {"student": {"widths": [4]}}}, "got no `_target_`"),
        ({"cnn": {"student": CNN, "widths": [[4]]}}, "alone but got widths"),
        ({"cnn": {"student": CNN, "grid": {"depth": 8}}}, "Write one choice as [8]"),
        ({"cnn": {"student": CNN, "grid": [8]}}, "map keywords to lists"),
        ({"a": {"student": CNN}, "b": {"student": CNN}}, "`a` and `b` are the same"),
        ({"a b": {"student": CNN}, "a_b": {"student": {"_target_": "x"}}}, "Rename a family"),
    ],
)
def test_a_malformed_space_is_refused(space, message):
    with pytest.raises(UserError) as error:
        candidates(space, 40, 0)
    assert message in str(error.value)
