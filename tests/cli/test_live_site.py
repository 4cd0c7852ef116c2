"""The command beside a site that serves: nothing that its visitors have is touched."""

from __future__ import annotations

import threading

from tests.cli.sites import processes
from tests.live_site import Visitor, configured, serving


@processes
def test_check_and_bench_beside_a_site_under_load(folder):
    """Both work while visitors come, no visit is lost, and the store holds the visitors' sessions alone."""
    ini = configured(folder.path)
    are_done = threading.Event()
    counts = {}

    def visit(visitor, number):
        visits = 0
        while not are_done.is_set():
            assert visitor.get("/").status == 200
            visits += 1
        counts[number] = (visits, visitor.session["data"]["visits"])

    with serving(ini) as site:
        threads = [threading.Thread(target=visit, args=(Visitor(site), number)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            checked = folder.process("check", "--strict", "--cron", "--start", ini)
            benched = folder.process("bench", ini, "--requests", 100)
        finally:
            are_done.set()
            for thread in threads:
                thread.join()

        assert (checked.code, benched.code) == (0, 0)
        assert "Store: write, read, swap, delete: ok" in checked.out
        assert "Traceback" not in str(site.log)

    assert [stored for _, stored in counts.values()] == [visits for visits, _ in counts.values()]
    assert len(counts) == 4
    assert len(list((folder.path / "data/sessions/container_file").rglob("*.cache"))) == 4
