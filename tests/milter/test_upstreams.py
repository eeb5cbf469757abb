"""The breaker of one rspamd, and its URL; how several play together is in test_rspamd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaywarden.errors import ScanError
from relaywarden_milter.upstreams import FAILURES_TO_OPEN, OPEN_SECONDS, Breaker, Upstream


@given(
    st.lists(
        st.tuples(st.sampled_from(["ask", "ask", "fail", "fail", "fail", "answer"]), st.sampled_from([0.0, 0.5, 2.0, 6.0]))
    )
)
def test_an_open_breaker_admits_one_probe_at_a_time(events: list[tuple[str, float]]) -> None:
    breaker, now, in_a_row, probing_until = Breaker(), 1000.0, 0, 0.0
    for what, pause in events:
        now += pause
        if what == "ask":
            admitted = breaker.admits(now, now + 1.0)
            if in_a_row < FAILURES_TO_OPEN:
                assert admitted
            elif admitted:
                assert now >= probing_until
                probing_until = now + 1.0 + OPEN_SECONDS
            else:
                assert now < probing_until
        elif what == "fail":
            in_a_row += 1
            probing_until = now + OPEN_SECONDS
            assert breaker.failed(now) == (in_a_row == FAILURES_TO_OPEN)
        else:
            assert breaker.succeeded() == (in_a_row >= FAILURES_TO_OPEN)
            in_a_row = 0
        assert breaker.is_open == (in_a_row >= FAILURES_TO_OPEN)


def test_a_probe_that_never_reports_does_not_keep_the_breaker_open_for_ever() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        assert breaker.admits(0.0, 1.0)
        breaker.failed(0.0)
    assert not breaker.admits(OPEN_SECONDS - 0.1, 99.0)
    assert breaker.admits(OPEN_SECONDS, OPEN_SECONDS + 2.0)
    assert not breaker.admits(OPEN_SECONDS + 2.0, 99.0)  # its time is over, but it may be about to report
    assert breaker.admits(2 * OPEN_SECONDS + 2.0, 99.0)


@pytest.mark.parametrize("url", ["http://", "ftp://127.0.0.1", "http://127.0.0.1:port", "http://[::1", "http://h:99999"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ScanError, match=r"scan\.url"):
        Upstream(url)


def test_the_port_and_the_scheme_can_be_left_out() -> None:
    targets = [Upstream(url).target for url in ("127.0.0.1", "http://[::1]", "h.example:1")]
    assert [target.name for target in targets] == ["127.0.0.1:11333", "[::1]:11333", "h.example:1"]
