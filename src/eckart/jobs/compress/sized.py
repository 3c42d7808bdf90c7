"""One size for every matrix, instead of a budget that is shared out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eckart.compressors.contract import METHODS
from eckart.errors import Refused
from eckart.jobs.compress.choices import Choice
from eckart.jobs.compress.curves import Curve
from eckart.jobs.compress.plan import Plan
from eckart.models.groups import Group


def sized(plan: Plan, word: str, size: int) -> Choice:
    """Every group at one size; one that has no candidate of it stays dense, and its curve says why.

    Args:
        plan: fitted, with errors or without.
        word: what the size counts, of `SIZES`; a group whose sizes count something else has no candidate of it.
        size: of every matrix.

    Raises:
        Refused: no group has a candidate of that size.
    """
    choice = sizes_of(plan, plan.groups, word, size)
    check_offered(plan, choice, word, size)
    return choice


def sizes_of(plan: Plan, groups: Sequence[Group], word: str, size: int) -> Choice:
    """As `sized` for some of the groups, of which none need have a candidate of that size."""
    choice: Choice = {}
    for group in groups:
        curve = plan.curves[group.name]
        at = _position(curve, word, size, group.kind)
        choice[group.name] = None if at is None else curve.sizes[at]
        if at is None and not curve.failed:
            curve.reason = curve.reason or f"it has no candidate of {word}={size}"
    return choice


def check_offered(plan: Plan, choice: Choice, word: str, size: int) -> None:
    """Raises Refused where no group of a plan has a candidate of a size."""
    if plan.groups and all(size is None for size in choice.values()):
        offered = {own for group in plan.groups for own in _offered(plan.curves[group.name], word, group.kind)}
        has = f"it has {_listed(offered)}" if offered else "none pays"
        failed = [f"; {name} stays dense: {reason}" for name, reason in plan.failures().items()]
        raise Refused(f"method {plan.method.name!r} has {word}={size} for no matrix: {has}{''.join(failed[:3])}")


def left_dense(plan: Plan, choice: Choice, word: str, size: int) -> list[str]:
    """A warning of the matrices that have no candidate of a size; none where all have one."""
    left = [name for name, picked in choice.items() if picked is None and not plan.curves[name].failed]
    if not left:
        return []
    some = ", ".join(left[:3]) + ", ..." * (len(left) > 3)
    return [f"{len(left)} of {len(choice)} stay dense, to which {word}={size} is not offered or does not pay: {some}"]


def _counts(name: str, kind: str) -> str:
    card = METHODS.find(name)
    return card.counted.get(kind, card.size)


def _offered(curve: Curve, word: str, kind: str) -> list[int]:
    return [own for name, own in curve.members if _counts(name, kind) == word]


def _position(curve: Curve, word: str, size: int, kind: str) -> int | None:
    """That of the candidate of a size, among those of a curve; None where there is none.

    Of several that count the same, the one that the family itself builds for it.
    """
    found = [i for i, (name, own) in enumerate(curve.members) if own == size and _counts(name, kind) == word]
    return min(found, key=lambda i: curve.sizes[i] != size, default=None)


def _listed(sizes: Iterable[int]) -> str:
    listed = sorted(sizes)
    shown = listed if len(listed) <= 12 else [*listed[:6], "...", *listed[-2:]]
    return ", ".join(map(str, shown))
