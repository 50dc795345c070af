"""The older API: the same files as the page, by the same rules."""

from __future__ import annotations

import json
import time

from .conftest import Start
from .upstream import Upstream

DAY = 86_400


def test_ages_and_yanks_are_told_by_the_rules_of_the_page(start: Start, upstream: Upstream) -> None:
    kept = upstream.add("lib", "1.0", says={"requires-python": ">=3.9"})
    upstream.add("lib", "1.1", says={"yanked": "broken"})
    upstream.add("lib", "2.0rc1")
    yesterday = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - DAY))
    upstream.add("lib", "3.0", uploaded=yesterday)
    engine = start(minimum_age=7 * DAY)
    reply = engine.ask("/legacy/lib")
    assert reply.status == 200
    document = json.loads(reply.body)
    assert sorted(document["releases"]) == ["1.0", "1.1", "2.0rc1"]
    info = document["info"]
    assert (info["name"], info["version"], info["requires_python"], info["yanked"]) == ("lib", "1.0", ">=3.9", False)
    assert [release["yanked_reason"] for release in document["releases"]["1.1"]] == ["broken"]
    (file,) = document["urls"]
    assert file["url"] == f"/public/lib/{kept.sha256[:16]}/{kept.filename}"
    assert file["digests"] == {"sha256": kept.sha256}
    assert file["upload_time_iso_8601"].startswith(file["upload_time"])
    assert engine.ask("/legacy/none").status == 404
    upstream.add("young", "1.0", uploaded=yesterday)
    assert engine.ask("/legacy/young").status == 403
