"""A site in a frame of another site's page, in a browser that blocks third-party cookies."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.ci]

SITE, SHOP, OTHER_SHOP = "widget.site.test", "www.shop.test", "www.other.test"


def count(request):
    """Count the visits; a form counts on."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    token = request.session.get_csrf_token()
    return (
        f"<p>{request.session['visits']}</p>"
        f'<form method="post"><input type="hidden" name="csrf_token" value="{token}"><button>count</button></form>'
    )


@pytest.fixture
def embedded(stage, https, tab):
    """Return what plays the site, with options, and then shows how often it was visited: in a frame, or by itself."""

    def play(**options):
        stage.play_sessions(SITE, {"": count}, secure=True, samesite="None", **options)
        for host in (SHOP, OTHER_SHOP):
            stage.play_page(host, f'<iframe src="{https(SITE)}"></iframe>')

        def visits(host, clicks=0):
            tab.open(https(host))
            if host == SITE:
                return int(tab.text("p"))
            with tab.frame():
                for _ in range(clicks):
                    tab.click("button")
                return int(tab.text("p"))

        return visits

    return play


def test_a_partitioned_session_works_in_a_frame(embedded):
    """With ``partitioned`` there is a session for each site that embeds ours, and another one by itself."""
    visits = embedded(partitioned=True)
    in_shop = [visits(SHOP), visits(SHOP, clicks=1)]
    alone = [visits(SITE), visits(SITE)]
    in_other = [visits(OTHER_SHOP), visits(OTHER_SHOP)]

    assert in_shop == [1, 3]
    assert alone == [1, 2]
    assert in_other == [1, 2]
    assert visits(SHOP) == 4


def test_another_session_does_not(embedded):
    """Without ``partitioned`` each visit in a frame begins a new session, and none sees that of the site by itself."""
    visits = embedded()
    alone = [visits(SITE), visits(SITE)]

    assert alone == [1, 2]
    assert [visits(SHOP), visits(SHOP)] == [1, 1]
    assert visits(SITE) == 3
