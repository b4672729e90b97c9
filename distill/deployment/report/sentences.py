"""What the report of a pipeline says in sentences. Words from plain values; decides nothing."""

from distill.deployment.report.cells import Values
from distill.pages import figure, percent, percent_interval
from distill.statistics.metrics import estimate_from
from distill.wording import ERRORS, gain_phrase, gain_range, metric_name, metric_text, test_name


def distillation_sentence(
    gain: Values, metric: str, confidence: float, models: Values | None = None
) -> str:
    """Answer "did distillation help?" in one sentence, with its interval.

    Args:
        gain: of the student over the control.
        metric: that decides.
        confidence: of the interval.
        models: scores by role; a teacher among them that is no better than the control is the
            first thing to look at where distillation hurt.
    """
    low, high = estimate_from(gain).interval
    points = gain_phrase(metric, gain["estimate"], of="the control")
    doubt = (
        f"({confidence:.0%} interval {gain_range(metric, gain['interval'])}, "
        f"{test_name(gain)} p = {gain['p_value']:.2g}, {gain['num_samples']} test samples)"
    )
    if low > 0:
        return f"Distillation helped: {points} {doubt}."
    if high < 0:
        advice = _advice_on_teacher(metric, models or {}) or "Ship the control, or change the loss."
        return f"Distillation hurt: {points} {doubt}. {advice}"
    return f"Distillation made no difference that this test set can show: {points} {doubt}."


def _advice_on_teacher(metric: str, models: Values) -> str | None:
    """Say what to look at where the teacher is no better than the control; None where it is."""
    roles = ("teacher", "control")
    if not all(role in models for role in roles):
        return None
    teacher, control = (models[role][metric]["estimate"] for role in roles)
    if (teacher < control) if metric in ERRORS else (teacher > control):
        return None
    return (
        f"Look at the teacher first: its {metric_name(metric)} is {metric_text(metric, teacher)}, "
        f"the control's {metric_text(metric, control)}. Is it read as it was trained (classes and "
        "their order, mean and std, input size, views)? Else choose a better one, or ship the "
        "control."
    )


def coverage_sentences(evaluation: Values) -> list[str]:
    """Say how often the student's outermost quantiles cover, beside how often they ought to."""
    found, levels = evaluation["models"]["student"].get("coverage"), evaluation["quantiles"]
    if found is None:
        return []
    return [
        "From its lowest to its highest quantile the student covers "
        f"{percent(found['estimate'], 1)} of the test labels "
        f"({percent_interval(found['interval'], 1)}), nominal {100 * (levels[-1] - levels[0]):g} %."
    ]


def unit_sentences(evaluation: Values) -> list[str]:
    """Say what errors of several numbers in units of their own are measured in."""
    units = evaluation.get("units")  # of an older run there is none
    if not units:
        return []
    each = ", ".join(f"{figure(size)} of {name}" for name, size in units.items())
    return [
        f"{metric_name(evaluation['metric'])} is of all numbers together, each divided by its "
        f"spread in training: 1 is {each}. So are limits on it."
    ]


def epoch_sentence(student: Values, metric: str) -> str:
    """Say of which epoch the exported student is, and what the last one would have been.

    Args:
        student: its result in `train.json`.
        metric: that decides.
    """
    best, last = (
        metric_text(metric, student[f"test_at_{epoch}_epoch"][metric]["estimate"])
        for epoch in ("best", "last")
    )
    if metric in ERRORS:
        best, last = (f"{metric_name(metric)} {text}" for text in (best, last))
    temperature = student["test_at_best_epoch"].get("temperature")
    folded = (
        ""
        if temperature is None
        else f" A temperature of {temperature:.2f}, fitted on validation, is folded into it."
    )
    said = f"The student that is exported is that of epoch {student['best_epoch'] + 1}, "
    if student["best_epoch"] == student["last_epoch"]:
        said += f"the last: {best} on test by torch."
    else:
        said += (
            f"better on validation than the last: {best} on test by torch; at the last epoch, "
            f"{student['last_epoch'] + 1}, it is {last}."
        )
    return said + folded


def agreement_note(metric: str) -> str:
    """Say what agreement is where it is not the share of equal answers."""
    if metric not in ERRORS:
        return ""
    return "Agreement is the share of the teacher's variance that is explained. "


def measured_through(evaluation: Values, baseline: Values) -> str:
    """Say through what each model's figures were measured."""
    through = "; ".join(
        f"{role_name(role)}: {model['measured_through']}"
        for role, model in evaluation["models"].items()
    )
    incumbent = baseline["incumbent"]
    if incumbent is not None:
        through += f"; incumbent: {incumbent['measured_through']}"
    return f"Measured through: {through}; baseline: {baseline['measured_through']}."


def role_name(role: str) -> str:
    """Write a role's name in words."""
    return role.replace("_", " ")
