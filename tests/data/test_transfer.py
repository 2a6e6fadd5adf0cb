"""One file from one place, over connections that break, lie and fall silent: counted in bytes on the wire."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from damorl.data.transfer import Failed, Hopeless, Patience, transfer
from damorl.errors import UserError
from tests.data.http_server import Reply, Server, serving

QUICK = Patience(timeout=5.0, delays=(0.0, 0.0, 0.0))
THIRD = 100_000
"""Bytes after which a connection is cut: the file has three times as many and some."""
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.fixture
def url(server: Server) -> str:
    return f"{server.url}/hopper_medium-v2.hdf5"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def bring(server: Server, url: str, part: Path, *replies: Reply) -> bytes:
    """What `part` holds, once `server` has answered with `replies` and honestly after that."""
    server.replies[:] = replies
    transfer(url, part, QUICK)
    return part.read_bytes()


def ranges(server: Server) -> list[str | None]:
    return [request.range for request in server.requests]


def test_a_connection_cut_again_and_again_is_resumed_where_it_broke(
    server: Server, url: str, part: Path, good: bytes
) -> None:
    cuts = [Reply(cut=THIRD // 4)] * 9  # more than there are delays, but each got further
    assert bring(server, url, part, *cuts) == good
    assert ranges(server) == [None, *(f"bytes={THIRD // 4 * count}-" for count in range(1, 10))]
    assert {request.if_range for request in server.requests[1:]} == {'"one"'}
    assert server.sent == len(good)


def test_a_server_that_ignores_ranges_gives_the_whole_file_again(
    server: Server, url: str, part: Path, good: bytes
) -> None:
    assert bring(server, url, part, Reply(cut=THIRD), Reply(ranges=False)) == good
    assert server.sent == THIRD + len(good)


def test_a_connection_that_gets_no_further_is_given_up_and_what_came_is_kept(
    server: Server, url: str, part: Path, good: bytes
) -> None:
    with pytest.raises(Failed, match=rf"the connection ended after {THIRD} of {len(good)} bytes"):
        bring(server, url, part, Reply(cut=THIRD), *[Reply(cut=0)] * 4)
    assert len(server.requests) == 4
    assert part.read_bytes() == good[:THIRD]
    assert bring(server, url, part) == good
    assert server.sent == len(good)


@pytest.mark.parametrize(
    ("reply", "if_range"),
    [
        (Reply(etag=None), None),
        (Reply(etag='W/"weak"'), None),
        (Reply(etag='W/"weak"', modified=DATE), DATE),
        (Reply(etag=None, modified=DATE), DATE),
    ],
    ids=["nothing", "weak tag", "weak tag and date", "date"],
)
def test_halves_are_joined_only_if_the_server_can_tell_versions_apart(
    server: Server, url: str, part: Path, good: bytes, reply: Reply, if_range: str | None
) -> None:
    assert bring(server, url, part, replace(reply, cut=THIRD), reply) == good
    assert [request.if_range for request in server.requests] == [None, if_range]
    assert server.sent == len(good) + (0 if if_range else THIRD)


@pytest.mark.parametrize("if_range", [True, False], ids=["honest server", "server ignores If-Range"])
def test_a_file_that_changed_between_two_halves_is_not_glued_together(
    server: Server, url: str, part: Path, other: bytes, if_range: bool
) -> None:
    new = Reply(body=other, etag='"two"', if_range=if_range)
    assert bring(server, url, part, Reply(cut=THIRD), new, new) == other
    assert ranges(server) == [None, f"bytes={THIRD}-", None][: 2 if if_range else 3]


@pytest.mark.parametrize(
    "content_range", ["", "nonsense", "bytes 0-99/100", "bytes 7-{last}/{size}", f"bytes {THIRD}-999998/999999"]
)
def test_a_range_that_was_not_asked_for_is_not_used(
    server: Server, url: str, part: Path, good: bytes, content_range: str
) -> None:
    wrong = Reply(content_range=content_range.format(last=len(good) - 1, size=len(good)))
    assert bring(server, url, part, Reply(cut=THIRD), wrong) == good
    assert ranges(server) == [None, f"bytes={THIRD}-", None]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, url: str, part: Path, good: bytes) -> None:
    bring(server, url, part)
    part.write_bytes(good + b"more")
    assert bring(server, url, part) == good


def test_a_silent_server_is_left_and_asked_again(server: Server, url: str, part: Path, good: bytes) -> None:
    server.replies[:] = [Reply(stall=20.0), Reply(cut=THIRD, stall=20.0)]
    transfer(url, part, Patience(timeout=0.3, delays=(0.0,)))
    assert part.read_bytes() == good
    assert ranges(server) == [None, None, f"bytes={THIRD}-"]
    server.replies[:] = [Reply(stall=20.0)]
    with pytest.raises(Failed, match="no answer in time"):
        transfer(url + "?", part, Patience(timeout=0.1, delays=()))


def test_a_body_of_untold_length_is_read_to_its_end_and_resumed(
    server: Server, url: str, part: Path, good: bytes
) -> None:
    assert bring(server, url, part, Reply(chunked=True, cut=THIRD), Reply(chunked=True)) == good
    assert server.sent == len(good)


def test_a_redirect_is_followed_also_when_resuming(server: Server, url: str, part: Path, good: bytes) -> None:
    server.files["/elsewhere"] = good
    redirect = Reply(location=f"{server.url}/elsewhere")
    assert bring(server, url, part, redirect, Reply(cut=THIRD), redirect) == good
    assert [request.path for request in server.requests] == ["/hopper_medium-v2.hdf5", "/elsewhere"] * 2
    assert server.sent == len(good)


def test_attempts_wait_as_long_as_told(
    server: Server, url: str, part: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.replies[:] = [Reply(status=500), Reply(status=503), Reply(cut=THIRD), Reply(status=502)]
    transfer(url, part, Patience(delays=(1.0, 2.0, 4.0)), progress=True)
    assert waits == [1.0, 2.0, 1.0, 2.0]  # the cut got further than anything before it
    captured = capsys.readouterr()
    assert f"{url}: HTTP 503 Service Unavailable; trying again in 2 s" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("reply", "kind", "num_requests", "reason"),
    [
        (Reply(status=403), Hopeless, 1, "HTTP 403 Forbidden"),
        (Reply(status=404), Hopeless, 1, "HTTP 404 Not Found"),
        (Reply(status=204), Hopeless, 1, "HTTP 204 instead of the file"),
        (Reply(location="/hopper_medium-v2.hdf5"), Hopeless, 5, "HTTP 302 .* infinite loop"),
        (Reply(status=500), Failed, 4, "HTTP 500 Internal Server Error"),
        (Reply(status=429), Failed, 4, "HTTP 429 Too Many Requests"),
        (Reply(extra_length=7), Failed, 4, "HTTP 416|the connection ended"),
    ],
)
def test_what_may_get_better_is_tried_again_and_nothing_else(
    server: Server, url: str, part: Path, reply: Reply, kind: type[Failed], num_requests: int, reason: str
) -> None:
    with pytest.raises(Failed, match=reason) as failed:
        bring(server, url, part, *[reply] * 12)
    assert type(failed.value) is kind or kind is Failed
    assert len(server.requests) == num_requests


def test_an_address_where_nobody_listens(server: Server, part: Path) -> None:
    with serving() as gone:
        url = f"{gone.url}/file"
    with pytest.raises(Failed, match="Connection refused"):
        transfer(url, part, QUICK)
    with pytest.raises(Hopeless, match="port"):
        transfer("http://127.0.0.1:port/file", part, QUICK)


def test_bytes_of_one_address_are_kept_until_another_answers_and_then_not_continued(
    server: Server, url: str, part: Path, good: bytes, other: bytes
) -> None:
    with pytest.raises(Failed):
        bring(server, url, part, Reply(cut=THIRD), *[Reply(status=500)] * 4)
    with serving() as second:
        with pytest.raises(Hopeless, match="404"):
            transfer(f"{second.url}/x", part, QUICK)
        assert part.read_bytes() == good[:THIRD]
        second.files["/x"] = other
        transfer(f"{second.url}/x", part, QUICK)
        assert part.read_bytes() == other
        assert ranges(second) == [None, None]


def test_a_copy_is_resumed_unless_the_file_changed(tmp_path: Path, part: Path, good: bytes, other: bytes) -> None:
    source = tmp_path / "with space"
    source.write_bytes(good)
    mtime_ns = source.stat().st_mtime_ns
    assert not transfer(source.as_uri(), part, QUICK)
    part.write_bytes(bytes(THIRD))  # not the file's, to see them again
    assert transfer(source.as_uri(), part, QUICK)
    assert part.read_bytes() == bytes(THIRD) + good[THIRD:]
    part.write_bytes(good[:THIRD])
    source.write_bytes(other)
    os.utime(source, ns=(mtime_ns + 1, mtime_ns + 1))
    assert not transfer(source.as_uri(), part, QUICK)
    assert part.read_bytes() == other


def test_a_full_disk_is_the_users_matter_not_the_mirrors(
    server: Server, url: str, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr("damorl.data.transfer._write_record", lambda part, origin: part.symlink_to("/dev/full"))
    with pytest.raises(UserError, match=r"cannot write .*file\.part: .*'No space left on device'"):
        transfer(url, part, QUICK)
    assert len(server.requests) == 1
