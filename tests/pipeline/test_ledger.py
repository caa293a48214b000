from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import LedgerError, PipelineError
from pipeline.ledger import Ledger

COUNTS = st.integers(0, 1000)
CAUSES = st.dictionaries(st.sampled_from(["stale", "late", "stopped"]), COUNTS)


def ledger_of(delivered, failed, dropped, missing=0):
    ledger = Ledger(delivered=delivered, failed=failed)
    for cause, count in dropped.items():
        ledger.drop(cause, count)
    ledger.captured = delivered + failed + sum(dropped.values()) + missing
    return ledger


@given(COUNTS, COUNTS, CAUSES)
def test_it_balances_when_every_frame_went_somewhere(delivered, failed, dropped):
    ledger = ledger_of(delivered, failed, dropped)
    assert ledger.unaccounted == 0
    ledger.check()


@given(COUNTS, COUNTS, CAUSES, st.integers(-50, 50).filter(bool))
def test_frames_that_are_missing_or_came_twice_are_an_error(delivered, failed, dropped, missing):
    ledger = ledger_of(delivered, failed, dropped, missing)
    assert ledger.unaccounted == missing
    with pytest.raises(LedgerError, match=f"{missing} frames unaccounted") as caught:
        ledger.check()
    assert str(ledger) in str(caught.value)
    assert isinstance(caught.value, PipelineError)


def test_what_never_was_on_the_main_path_stands_beside_it():
    ledger = ledger_of(5, 0, {})
    ledger.lose("undecodable", 3)
    ledger.skipped["screen"] = 2
    ledger.check()
    assert "lost 3 undecodable" in str(ledger)
    assert "skipped 2 by screen" in str(ledger)


def test_causes_add_up_and_nothing_is_written_for_none():
    ledger = Ledger()
    ledger.drop("stale", 2)
    ledger.drop("stale")
    ledger.drop("late", 0)
    ledger.lose("undecodable", 0)
    assert ledger.dropped == {"stale": 3}
    assert ledger.lost == {}


def test_the_line_at_the_end_of_a_run():
    ledger = ledger_of(7, 1, {"stale": 2, "stopped": 3})
    assert str(ledger) == "captured 13 = delivered 7 + dropped 5 (2 stale, 3 stopped) + failed 1"
    assert str(ledger_of(3, 0, {})) == "captured 3 = delivered 3 + dropped 0 + failed 0"


def test_the_reports_frames():
    frames = ledger_of(7, 1, {"stale": 2}).as_dict()
    assert {"captured": 10, "delivered": 7, "dropped": {"stale": 2}, "failed": 1}.items() <= (
        frames.items()
    )
    assert frames["lost"] == frames["skipped"] == {}
