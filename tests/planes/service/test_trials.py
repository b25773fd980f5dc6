"""The verdict on revisions that servers die of."""

from cvmfs_graphdriver.planes.service.trials import Trials
from cvmfs_graphdriver.planes.service.vitals import Shown, Vitals
from cvmfs_graphdriver.repository.digest import Digest

OLD, GOOD, BAD, NEXT = (Digest.of(name) for name in (b"old", b"good", b"bad", b"next"))


class Case:
    def __init__(self) -> None:
        self.trials = Trials()
        self.now = 1000.0

    def lives(self, root: Digest, seconds: int) -> Shown:
        shown = Shown(root.text, self.now)
        for _ in range(seconds):
            self.now += 1
            self.trials.alive(shown, self.now)
        return shown

    def dies(self, root: Digest, seconds: int = 1) -> str:
        return self.trials.died(self.lives(root, seconds), self.now)


def test_three_deaths_at_once_of_one_revision_are_enough() -> None:
    case = Case()
    case.lives(OLD, 60)
    case.lives(GOOD, 60)
    assert [case.dies(BAD) for _ in range(3)] == ["", "", GOOD.text]
    retreat = case.trials.retreat
    assert retreat.good == GOOD
    assert retreat.avoided == ((BAD, case.now + 3600),)


def test_a_revision_that_worked_for_a_while_may_turn_out_to_be_bad() -> None:
    case = Case()
    case.lives(GOOD, 60)
    assert case.dies(BAD, 60) == ""
    assert [case.dies(BAD) for _ in range(3)] == ["", "", GOOD.text]
    assert [case.dies(GOOD) for _ in range(9)] == [""] * 9, "there is nothing else"
    assert case.trials.retreat.good == GOOD


def test_deaths_of_several_revisions_or_after_a_while_say_nothing() -> None:
    case = Case()
    case.lives(GOOD, 60)
    assert [case.dies(root) for root in (BAD, NEXT) * 5] == [""] * 10
    assert [case.dies(BAD, seconds) for seconds in (1, 1, 11, 1, 1, 11)] == [""] * 6
    assert case.trials.died(None, case.now) == ""
    assert case.trials.retreat.avoided == ()


def test_without_a_revision_that_worked_there_is_no_way_back() -> None:
    case = Case()
    assert [case.dies(BAD) for _ in range(9)] == [""] * 9
    assert case.trials.retreat.good is None


def test_what_a_server_writes_its_keeper_reads() -> None:
    vitals = Vitals()
    assert vitals.shown is None
    before = vitals.beats
    vitals.beat()
    assert vitals.beats != before
    vitals.show(BAD)
    vitals.show(GOOD)
    assert vitals.shown is not None
    assert vitals.shown.root == GOOD.text
    vitals.clear()
    assert vitals.shown is None
