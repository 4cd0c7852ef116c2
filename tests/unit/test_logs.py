"""Log lines that every request could cause."""

from beaker_bridge.logs import LogLimiter


def test_one_line_in_a_time():
    """A line about something is due once in the time that is asked for; others are counted apart."""
    lines = LogLimiter()
    due = [lines.is_due("this", 60, now) for now in (0.0, 1.0, 59.9, 60.0, 61.0, 120.0)]

    assert due == [True, False, False, True, False, True]
    assert lines.is_due("that", 60, 121.0)


def test_a_clock_that_is_set_back_keeps_nothing_quiet():
    """Where the clock was an hour ahead, a line is due again at once, and then once in its time."""
    lines = LogLimiter()
    due = [lines.is_due("this", 60, now) for now in (3600.0, 3601.0, 1.0, 2.0)]

    assert due == [True, False, True, False]
