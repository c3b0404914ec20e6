# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fetch engine against a server that fails in every way that the engine claims to survive."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import engine
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import pieces as pieces_module
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch import source as source_module
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.engine import (
    Fetched,
    FetchError,
    Progress,
    Source,
    chunk_of,
    fetch,
    inspect,
)
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.source import Place
from ansible_collections.gpufleet.llamacpp.tests.unit._fetch.fault_server import (
    FaultServer,
    Reply,
    Request,
    data_only,
    flipped,
    header,
    redirect,
    shifted,
    short,
    stalled,
    status,
    trickling,
)

CHUNK = 64 << 10
CONTENT = random.Random(1).randbytes(16 * CHUNK + 4321)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SECRET = "hf_secretsecretsecret"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "BACKOFF", 0.01)
    monkeypatch.setattr(source_module, "BACKOFF_MAX", 0.05)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(CONTENT) as running:
        yield running


@pytest.fixture
def mirror() -> Iterator[FaultServer]:
    with FaultServer(CONTENT) as running:
        yield running


def pull(folder: Path, *sources: Source, **options: Any) -> Fetched:
    options = {"size": len(CONTENT), "sha256": SHA256, "chunk": CHUNK, "connections": 4, "timeout": 5.0, **options}
    return fetch(sources, str(folder / "file"), **options)


def alone(folder: Path) -> bool:
    """Nothing but the file itself is there."""
    return os.listdir(folder) == ["file"]


def right(folder: Path) -> bool:
    return alone(folder) and (folder / "file").read_bytes() == CONTENT


def test_a_file_arrives_in_ranges(tmp_path: Path, server: FaultServer) -> None:
    fetched = pull(tmp_path, Source(server.url))
    assert right(tmp_path)
    assert (fetched.size, fetched.sha256, fetched.url) == (len(CONTENT), SHA256, server.url)
    assert (fetched.bytes_fetched, fetched.bytes_resumed, fetched.bytes_from_mirrors, fetched.retries) == (
        len(CONTENT),
        0,
        0,
        0,
    )
    assert [(one.start, one.end) for one in sorted(server.data_requests, key=lambda one: one.start)] == [
        (start, min(start + CHUNK, len(CONTENT))) for start in range(0, len(CONTENT), CHUNK)
    ]
    assert all(one.headers["Accept-Encoding"] == "identity" for one in server.requests)


@pytest.mark.parametrize(
    ("size", "mebibytes"),
    [(0, 4), (100_000_000, 4), (1 << 29, 4), (1 << 30, 8), (2 << 30, 16), (193_000_000_000, 16)],
)
def test_chunks_of_a_large_file_are_larger(size: int, mebibytes: int) -> None:
    assert chunk_of(size) == mebibytes << 20


def test_connections_are_kept(tmp_path: Path, server: FaultServer) -> None:
    pull(tmp_path, Source(server.url), connections=2)
    assert server.connections <= 3  # one asked for the first byte


def test_a_file_without_a_byte(tmp_path: Path) -> None:
    with FaultServer(b"") as server:
        fetched = pull(tmp_path, Source(server.url), size=0, sha256=hashlib.sha256(b"").hexdigest())
    assert fetched.size == 0 and (tmp_path / "file").read_bytes() == b"" and alone(tmp_path)


def test_size_is_asked_for(tmp_path: Path, server: FaultServer) -> None:
    assert pull(tmp_path, Source(server.url), size=None).size == len(CONTENT)
    assert right(tmp_path)


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, server: FaultServer) -> None:
    (tmp_path / "file").write_bytes(b"old")
    server.faults.add(data_only(status(404)))
    with pytest.raises(FetchError, match="404"):
        pull(tmp_path, Source(server.url))
    assert (tmp_path / "file").read_bytes() == b"old"
    old = (tmp_path / "file").open("rb")
    server.faults.waiting.clear()
    pull(tmp_path, Source(server.url))
    assert right(tmp_path)
    assert old.read() == b"old"


def test_a_wrong_sha256_keeps_nothing(tmp_path: Path, server: FaultServer) -> None:
    wrong = "0" * 64
    with pytest.raises(FetchError) as failure:
        pull(tmp_path, Source(server.url), sha256=wrong)
    assert wrong in str(failure.value) and SHA256 in str(failure.value)
    assert os.listdir(tmp_path) == []
    assert sum(one.start == 0 for one in server.data_requests) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(404, b"no such file"), "404 Not Found: no such file"),
        (status(410), "410"),
        (header("Content-Encoding", "gzip"), "Content-Encoding gzip"),
        (header("Content-Range", f"bytes 0-{CHUNK - 1}/{len(CONTENT) + 1}"), f"{len(CONTENT) + 1} bytes where"),
        (lambda request, reply: Reply(416, {"Content-Range": "bytes */5"}, b""), "416"),
    ],
)
def test_what_is_not_asked_again(tmp_path: Path, server: FaultServer, fault: Any, words: str) -> None:
    server.faults.add(data_only(fault))
    with pytest.raises(FetchError, match=words):
        pull(tmp_path, Source(server.url), connections=1)
    assert len(server.data_requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(502, b"bad gateway"),
        status(408),
        status(503, Retry_After="0"),
        status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        status(200, b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8"),
        lambda request, reply: Reply(200, {"ETag": '"one"'}, CONTENT),
        short(0),
        short(1000),
        short(20_000),
        header("Content-Range", None),
        shifted(1),
        header("Content-Range", "bytes 0-1/banana"),
    ],
)
def test_what_is_asked_again(tmp_path: Path, server: FaultServer, fault: Any) -> None:
    server.faults.add(data_only(fault), times=3)
    fetched = pull(tmp_path, Source(server.url), connections=1)
    assert right(tmp_path)
    assert fetched.retries == 3


@pytest.mark.parametrize(
    "fault", [status(500), short(0), header("Content-Range", None), status(200, b"<html>", Content_Type="text/html")]
)
def test_patience_ends(tmp_path: Path, server: FaultServer, fault: Any) -> None:
    server.faults.add(data_only(fault))
    with pytest.raises(FetchError, match=f"{source_module.TRIES_UNPROVEN} tries"):
        pull(tmp_path, Source(server.url), connections=1)
    assert len(server.data_requests) == source_module.TRIES_UNPROVEN


def test_patience_begins_anew_with_every_new_byte(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(short(20_000)))  # every request of the whole fetch
    fetched = pull(tmp_path, Source(server.url))
    assert right(tmp_path)
    assert fetched.retries > 2 * source_module.TRIES_PROVEN
    assert fetched.bytes_fetched == len(CONTENT)


def test_a_range_may_be_answered_in_part(tmp_path: Path, server: FaultServer) -> None:
    def half(request: Request, reply: Reply) -> Reply:
        end = request.start + 10_000
        return Reply(206, {"Content-Range": f"bytes {request.start}-{end - 1}/{len(CONTENT)}"}, reply.body[:10_000])

    server.faults.add(data_only(half), times=5)
    assert pull(tmp_path, Source(server.url)).retries == 0
    assert right(tmp_path)


def test_a_stalled_connection_is_left(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(stalled(30.0)), times=2)
    fetched = pull(tmp_path, Source(server.url), timeout=0.5)
    assert right(tmp_path)
    assert fetched.retries >= 1


def test_a_trickling_connection_is_left(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(trickling(0.05)), times=4)
    fetched = pull(tmp_path, Source(server.url), timeout=0.5)
    assert right(tmp_path)
    assert fetched.retries >= 4


def test_a_server_that_trickles_on_all_connections(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(trickling(0.05)))
    words = f"gave less than {16 << 10} bytes in 0.5 s \\({source_module.TRIES_UNPROVEN} tries\\)"
    with pytest.raises(FetchError, match=words):
        pull(tmp_path, Source(server.url), timeout=0.5)


def test_a_mirror_that_trickles_is_dropped(tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
    mirror.faults.add(data_only(trickling(0.05)))
    server.rate = 200e3
    fetched = pull(tmp_path, Source(server.url), Source(mirror.url), timeout=0.5, chunk=CHUNK // 2)
    assert right(tmp_path)
    assert fetched.bytes_from_mirrors == 0 and fetched.retries >= 1


def test_retry_after_is_honoured(tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float | None] = []
    failed = source_module.Place.failed

    def seen(self: Any, words: str, began: float, after: float | None, spare: bool) -> None:
        pauses.append(after)
        failed(self, words, began, 0.0 if after else after, spare)

    monkeypatch.setattr(source_module.Place, "failed", seen)
    server.faults.add(data_only(status(503, Retry_After="7")), times=1)
    server.faults.add(data_only(status(429, RateLimit='"resolvers";r=0;t=9')), times=1)
    server.faults.add(data_only(status(500, Retry_After="11")), times=1)
    pull(tmp_path, Source(server.url), connections=1)
    assert pauses == [7.0, 9.0, None]


def test_retry_after_is_bounded() -> None:
    place = source_module.Place(Source("http://a/b"), False)
    place.failed("busy", 1e-9, 1e9, False)
    assert place.not_before - place._failed_at == source_module.RETRY_AFTER_MAX


def test_one_outage_is_one_failure() -> None:
    place = source_module.Place(Source("http://a/b"), False)
    for _worker in range(50):
        place.failed("connection reset", 1e-9, None, False)
    assert place.dropped is None


def test_nobody_there(tmp_path: Path) -> None:
    with FaultServer(CONTENT) as server:
        url = server.url
    with pytest.raises(FetchError, match=r"Connection refused \(5 tries\)"):
        pull(tmp_path, Source(url))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/file", "http://"])
def test_no_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match="nothing to fetch from"):
        pull(tmp_path, Source(url))


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as failure:
        fetch([], str(tmp_path / "none" / "file"), size=1, sha256="abc", ca_path="/no/such/bundle")
    for words in ("no source", "none does not exist", "'abc' is not 64", "/no/such/bundle do not exist"):
        assert words in str(failure.value)


class TestWithoutRanges:
    def test_one_stream(self, tmp_path: Path) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            fetched = pull(tmp_path, Source(server.url))
            assert right(tmp_path)
            assert fetched.bytes_fetched == len(CONTENT)
            assert len(server.requests) == 2

    def test_every_try_begins_at_the_start(self, tmp_path: Path) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            server.faults.add(
                lambda request, reply: None if request.ranged else short(300_000)(request, reply), times=1
            )
            server.faults.add(
                lambda request, reply: None if request.ranged else short(700_000)(request, reply), times=1
            )
            fetched = pull(tmp_path, Source(server.url))
            assert right(tmp_path)
            assert fetched.retries == 2
            assert fetched.bytes_fetched > len(CONTENT) + 700_000

    def test_that_never_gets_further(self, tmp_path: Path) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            server.faults.add(lambda request, reply: None if request.ranged else short(300_000)(request, reply))
            with pytest.raises(FetchError, match="ended"):
                pull(tmp_path, Source(server.url))
            assert not (tmp_path / "file").exists()


class TestUnknownSha256:
    def test_is_computed(self, tmp_path: Path, server: FaultServer) -> None:
        fetched = pull(tmp_path, Source(server.url), sha256=None, size=None)
        assert (fetched.sha256, fetched.validator) == (SHA256, '"one"')
        assert right(tmp_path)
        assert all(one.headers["If-Range"] == '"one"' for one in server.data_requests)

    def test_needs_a_validator(self, tmp_path: Path, server: FaultServer) -> None:
        server.etag = None
        with pytest.raises(FetchError, match="neither a strong ETag nor Last-Modified"):
            pull(tmp_path, Source(server.url), sha256=None)
        server.etag = 'W/"weak"'
        with pytest.raises(FetchError, match="neither a strong ETag nor Last-Modified"):
            pull(tmp_path, Source(server.url), sha256=None)

    def test_takes_a_date_for_a_validator(self, tmp_path: Path, server: FaultServer) -> None:
        date = "Wed, 21 Oct 2015 07:28:00 GMT"
        server.etag = None
        server.faults.add(
            lambda request, reply: Reply(
                206,
                {"Last-Modified": date, "Content-Range": f"bytes {request.start}-{request.end - 1}/{len(CONTENT)}"},
                CONTENT[request.start : request.end],
            )
        )
        assert pull(tmp_path, Source(server.url), sha256=None).validator == date
        assert all(one.headers["If-Range"] == date for one in server.data_requests)

    @pytest.mark.parametrize("honest", [True, False])
    def test_a_change_on_the_way_starts_over(self, tmp_path: Path, server: FaultServer, honest: bool) -> None:
        changed = CONTENT[::-1]

        def change(request: Request, reply: Reply) -> Reply | None:
            if request.start < 8 * CHUNK or server.etag == '"two"':
                return None
            server.content, server.etag = changed, '"two"'
            headers = {"ETag": '"two"'}
            if honest:  # with If-Range as the standard wants it
                return Reply(200, headers, changed)
            headers["Content-Range"] = f"bytes {request.start}-{request.end - 1}/{len(changed)}"
            return Reply(206, headers, changed[request.start : request.end])

        server.faults.add(data_only(change))
        fetched = pull(tmp_path, Source(server.url), sha256=None)
        assert (tmp_path / "file").read_bytes() == changed
        assert (fetched.sha256, fetched.validator) == (hashlib.sha256(changed).hexdigest(), '"two"')
        assert alone(tmp_path)

    def test_one_that_changes_all_the_time(self, tmp_path: Path, server: FaultServer) -> None:
        count = iter(range(1_000_000))

        def another(request: Request, reply: Reply) -> Reply:
            return header("ETag", f'"{next(count)}"')(request, reply)

        server.faults.add(another)
        with pytest.raises(FetchError, match="changed at its source"):
            pull(tmp_path, Source(server.url), sha256=None)
        assert os.listdir(tmp_path) == []

    def test_mirrors_are_not_trusted(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        pull(tmp_path, Source(server.url), Source(mirror.url), sha256=None)
        assert right(tmp_path)
        assert mirror.requests == []


class TestSignedAddresses:
    """A hub that redirects to an address that is good for a while."""

    def test_redirects_are_followed_once(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(redirect(lambda: f"{mirror.url}?Signature=abcdefgh"))
        pull(tmp_path, Source(server.url))
        assert right(tmp_path)
        assert len(server.requests) <= 1 + 4

    def test_an_expired_address_is_asked_for_again(
        self, tmp_path: Path, server: FaultServer, mirror: FaultServer
    ) -> None:
        server.faults.add(redirect(lambda: f"{mirror.url}?n={len(server.requests)}"))
        seen: dict[str, int] = {}

        def expires(request: Request, reply: Reply) -> Reply | None:
            seen[request.path] = seen.get(request.path, 0) + 1
            return Reply(403, {}, b"Request has expired") if seen[request.path] > 5 else None

        mirror.faults.add(expires)
        fetched = pull(tmp_path, Source(server.url), connections=2)
        assert right(tmp_path)
        assert fetched.retries >= 2
        assert fetched.bytes_fetched == len(CONTENT)

    @pytest.mark.parametrize("resolves", [True, False])
    def test_addresses_that_are_good_once(
        self, tmp_path: Path, server: FaultServer, mirror: FaultServer, resolves: bool
    ) -> None:
        """Eight connections, and every request needs an address of its own."""
        numbers = itertools.count()
        used: set[str] = set()

        def sign() -> str:
            return f"{mirror.url}?n={next(numbers)}"

        def once(request: Request, reply: Reply) -> Reply | None:
            if request.path in used:
                return Reply(403, {}, b"Request has expired")
            used.add(request.path)
            return None

        server.faults.add(redirect(sign))
        mirror.faults.add(once)
        resolve = (lambda: (sign(), {})) if resolves else None
        fetched = pull(tmp_path, Source(server.url, {}, resolve), connections=8, chunk=CHUNK // 8)
        assert right(tmp_path)
        assert fetched.bytes_fetched == len(CONTENT)
        # That they are of this kind is soon known; from then on each request costs one address and no refusal.
        refusals = len(mirror.requests) - len(used)
        assert 0 < refusals <= 8 * (source_module.ADDRESSES_ONCE + 1)
        assert next(numbers) <= len(used) + 8

    def test_refusals_count_that_come_when_others_have_brought_newer_addresses(self) -> None:
        place = source_module.Place(Source("http://a/b"), False)
        shared = []
        for number in range(source_module.ADDRESSES_ONCE):
            place.settle(place.address(), f"http://c/{number}", {})
            shared.append(place.address())
            place.settle(source_module.Address("http://a/b", {}, place.generation, True), f"http://c/new{number}", {})
        for late in shared:
            place.renew(late, True)
        assert place.address().fresh, "each was good for one request alone, and there were enough of them"

    def test_an_address_that_is_good_for_many_is_shared(
        self, tmp_path: Path, server: FaultServer, mirror: FaultServer
    ) -> None:
        server.faults.add(redirect(lambda: f"{mirror.url}?n={len(server.requests)}"))
        expired = [5, 10, 15]

        def expires(request: Request, reply: Reply) -> Reply | None:
            if len(mirror.requests) in expired:
                return Reply(403, {}, b"Request has expired")
            return None

        mirror.faults.add(expires)
        pull(tmp_path, Source(server.url), connections=1)
        assert right(tmp_path)
        assert len(server.requests) == 1 + 3

    def test_resolve_gives_a_fresh_address(self, tmp_path: Path, server: FaultServer) -> None:
        asked: list[int] = []

        def resolve() -> tuple[str, dict[str, str]]:
            asked.append(1)
            return f"{server.url}?sig=good", {"X-Signed": "yes"}

        server.faults.add(lambda request, reply: None if "sig=good" in request.path else Reply(403, {}, b"expired"))
        pull(tmp_path, Source(f"{server.url}?sig=bad", {}, resolve))
        assert right(tmp_path)
        assert asked == [1]
        assert all(one.headers.get("X-Signed") == "yes" for one in server.data_requests)

    @pytest.mark.parametrize("code", [401, 403])
    def test_a_refusal_that_stays_tells_why(self, tmp_path: Path, server: FaultServer, code: int) -> None:
        server.faults.add(data_only(status(code, b"You need to accept\n the license")))
        source = Source(server.url, {}, lambda: (server.url, {}))
        with pytest.raises(FetchError, match=f"HTTP {code} .*: You need to accept the license"):
            pull(tmp_path, source, connections=1)
        assert len(server.data_requests) == 2  # once more with the fresh address

    def test_no_fresh_address(self, tmp_path: Path, server: FaultServer) -> None:
        def resolve() -> tuple[str, dict[str, str]]:
            raise FetchError("the hub is closed")

        server.faults.add(data_only(status(403, b"expired")))
        with pytest.raises(FetchError, match="expired; and no fresh address: the hub is closed"):
            pull(tmp_path, Source(server.url, {}, resolve))


class TestSecrets:
    def test_stay_with_their_origin(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(redirect(lambda: mirror.url))
        headers = {"Authorization": f"Bearer {SECRET}", "X-Key": SECRET}
        pull(tmp_path, Source(server.url, headers))
        assert right(tmp_path)
        assert all(one.headers["Authorization"] == f"Bearer {SECRET}" for one in server.requests)
        assert mirror.requests and not any(SECRET in str(one.headers) for one in mirror.requests)

    def test_stay_on_a_redirect_of_the_same_origin(self, tmp_path: Path, server: FaultServer) -> None:
        server.faults.add(
            lambda request, reply: None if "new" in request.path else Reply(307, {"Location": "/new"}, b"")
        )
        pull(tmp_path, Source(server.url, {"Authorization": SECRET}))
        assert right(tmp_path)
        assert all(one.headers["Authorization"] == SECRET for one in server.requests)

    def test_do_not_come_back_from_elsewhere(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(
            lambda request, reply: None if "back" in request.path else Reply(302, {"Location": mirror.url}, b"")
        )
        mirror.faults.add(redirect(lambda: f"{server.url}/back"))
        pull(tmp_path, Source(server.url, {"Authorization": SECRET}))
        assert right(tmp_path)
        assert not any("Authorization" in one.headers for one in server.requests if "back" in one.path)

    def test_netrc_does_not_replace_them(
        self, tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        pull(tmp_path, Source(server.url, {"Authorization": SECRET}))
        assert {one.headers["Authorization"] for one in server.requests} == {SECRET}

    def test_user_and_password_of_a_url(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(redirect(lambda: mirror.url))
        fetched = pull(tmp_path, Source(server.url.replace("//", "//me:my%20" + SECRET + "@")))
        assert right(tmp_path)
        assert server.requests[0].headers["Authorization"].startswith("Basic bWU6bXkg")
        assert not any("Authorization" in one.headers for one in mirror.requests)
        assert SECRET not in repr(fetched)

    @pytest.mark.parametrize("times", [1, 1_000_000])
    def test_are_in_no_message(self, tmp_path: Path, server: FaultServer, times: int) -> None:
        url = f"{server.url}?X-Amz-Signature={SECRET}&x=1".replace("//", f"//me:{SECRET}@")
        echo = f"<Error>Signature {SECRET} for /file?X-Amz-Signature={SECRET}&x=1 of Bearer tok_{SECRET} bad</Error>"
        server.faults.add(status(403, echo.encode()), times=times)
        source = Source(url, {"X-Token": f"Bearer tok_{SECRET}"})
        with pytest.raises(FetchError) as failure:
            pull(tmp_path, source, sha256="0" * 64)
        assert SECRET not in str(failure.value) + repr(failure.value) + repr(source) + str(source)
        assert server.url in str(failure.value)
        chain = failure.value.__context__
        assert chain is None or failure.value.__suppress_context__

    def test_are_in_no_message_about_a_connection(self, tmp_path: Path) -> None:
        with pytest.raises(FetchError) as failure:
            pull(tmp_path, Source(f"http://me:{SECRET}@127.0.0.1:9/file?sig={SECRET}", {"Authorization": SECRET}))
        assert SECRET not in str(failure.value)
        assert "http://127.0.0.1:9/file:" in str(failure.value)

    @pytest.mark.parametrize("url", ["http:///file", "ftp://127.0.0.1/file", "127.0.0.1/file"])
    def test_are_in_no_message_about_a_url(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(FetchError) as failure:
            pull(tmp_path, Source(f"{url}?sig={SECRET}&b=c"))
        assert SECRET not in str(failure.value)

    def test_are_in_no_message_about_a_header(self, tmp_path: Path, server: FaultServer) -> None:
        """As from a file whose end of line was not taken off."""
        with pytest.raises(FetchError, match="header") as failure:
            pull(tmp_path, Source(server.url, {"Authorization": f"Bearer {SECRET}\n"}))
        assert SECRET not in str(failure.value)

    def test_are_in_no_file(self, tmp_path: Path, server: FaultServer) -> None:
        server.faults.add(lambda request, reply: Reply(404, {}, b"") if request.start > 8 * CHUNK else None)
        with pytest.raises(FetchError):
            pull(tmp_path, Source(f"{server.url}?sig={SECRET}", {"Authorization": SECRET}))
        left = list(tmp_path.iterdir())
        assert len(left) == 2  # the part and a journal
        assert not any(SECRET.encode() in path.read_bytes() or SECRET in path.name for path in left)


class TestMirrors:
    def test_all_are_used_at_once(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.rate = mirror.rate = 2e6
        fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert right(tmp_path)
        assert 0 < fetched.bytes_from_mirrors < fetched.bytes_fetched == len(CONTENT)
        assert mirror.sent == fetched.bytes_from_mirrors

    @pytest.mark.parametrize(
        "fault", [status(404), status(500), status(403), short(0), status(200, b"<html>", Content_Type="text/html")]
    )
    def test_a_broken_one_is_dropped(
        self, tmp_path: Path, server: FaultServer, mirror: FaultServer, fault: Any
    ) -> None:
        mirror.faults.add(fault)
        fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert right(tmp_path)
        assert fetched.bytes_from_mirrors == 0

    def test_they_stand_in_for_a_broken_source(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(status(404))
        fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert right(tmp_path)
        assert fetched.bytes_from_mirrors == len(CONTENT)

    def test_one_of_another_size(self, tmp_path: Path, server: FaultServer) -> None:
        with FaultServer(CONTENT + b"!") as mirror:
            fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert right(tmp_path)
        assert fetched.bytes_from_mirrors == 0

    def test_one_without_ranges(self, tmp_path: Path, mirror: FaultServer) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert right(tmp_path)
        assert fetched.bytes_from_mirrors == len(CONTENT)
        assert server.data_requests == []

    def test_a_bad_byte_in_one_is_made_good(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.rate = mirror.rate = 2e6
        for offset in range(0, len(CONTENT), CHUNK):
            mirror.faults.add(flipped(offset + 77))
        fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert right(tmp_path)
        assert fetched.bytes_from_mirrors > 0
        assert fetched.bytes_fetched == len(CONTENT) * 2

    def test_a_stalled_one_does_not_hold_the_end(
        self, tmp_path: Path, server: FaultServer, mirror: FaultServer
    ) -> None:
        mirror.faults.add(stalled(3600.0))
        pull(tmp_path, Source(server.url), Source(mirror.url), timeout=600.0)
        assert right(tmp_path)

    def test_a_slow_one_is_dropped(self, tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Seen by the error when the other one has lost the last chunk: the slow one could have given it."""
        monkeypatch.setattr(engine, "SLOW_SECONDS", 0.0)
        monkeypatch.setattr(engine, "SLOW_PART", 0.5)
        server.rate = 400e3
        server.faults.add(lambda request, reply: Reply(404, {}, b"") if request.end == len(CONTENT) else None)
        with FaultServer(CONTENT, rate=100e3) as mirror, pytest.raises(FetchError) as failure:
            pull(tmp_path, Source(server.url), Source(mirror.url), chunk=CHUNK // 2)
        assert f"{mirror.url}: slow: " in str(failure.value)

    def test_who_is_slow(self) -> None:
        places = [Place(Source(f"http://{name}/"), True) for name in ("fast", "fair", "slow", "new")]
        for place, (count, seconds) in zip(places, [(10_000, 11.0), (1_100, 11.0), (1_000, 12.0), (1, 9.0)]):
            place.moved(count, seconds)
        engine.drop_slow(places)
        assert [place.dropped is None for place in places] == [True, True, False, True]

    def test_all_are_named_when_all_are_broken(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(status(404))
        mirror.faults.add(status(500))
        with pytest.raises(FetchError) as failure:
            pull(tmp_path, Source(server.url), Source(mirror.url))
        assert f"{server.url}: HTTP 404" in str(failure.value) and f"{mirror.url}: HTTP 500" in str(failure.value)


def test_a_limit_is_kept(tmp_path: Path, server: FaultServer) -> None:
    fetched = pull(tmp_path, Source(server.url), max_rate=4e6)
    assert right(tmp_path)
    # No less than the limit allows, however slow the machine; the first bytes are free.
    assert fetched.seconds >= len(CONTENT) / 4e6 * 0.8


def test_progress_is_told(tmp_path: Path, server: FaultServer) -> None:
    seen: list[Progress] = []
    server.rate = 4e5
    pull(tmp_path, Source(server.url), progress=seen.append, connections=2)
    assert {one.total for one in seen} == {len(CONTENT)}
    downloading = [one.bytes for one in seen if one.phase == "download"]
    assert len(downloading) > 2 and downloading == sorted(downloading) and 0 < downloading[-1] < len(CONTENT)
    assert any(one.rate > 0 for one in seen)


def test_a_callback_that_fails_ends_the_fetch(tmp_path: Path, server: FaultServer) -> None:
    def stop(dummy: Progress) -> None:
        raise KeyboardInterrupt

    server.rate = 4e5
    with pytest.raises(KeyboardInterrupt):
        pull(tmp_path, Source(server.url), progress=stop)
    assert not (tmp_path / "file").exists()


def test_a_proxy_of_the_environment_is_used(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("no_proxy", "")
    pull(tmp_path, Source("http://files.example/file"))
    assert right(tmp_path)
    assert server.requests[0].path == "http://files.example/file"


def test_inspect(server: FaultServer) -> None:
    remote = inspect(Source(f"{server.url}?a=b"))
    assert (remote.size, remote.validator, remote.ranged, remote.url) == (len(CONTENT), '"one"', True, server.url)
    with pytest.raises(FetchError, match="5 are expected"):
        inspect(Source(server.url), size=5)


def test_no_connection_outlives_the_fetch(tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
    """What a slow mirror was still asked for is broken off as soon as the file is there."""
    mirror.faults.add(data_only(stalled(30.0)))
    pull(tmp_path, Source(server.url), Source(mirror.url), timeout=30.0)
    own = [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    for thread in own:
        thread.join(2.0)
    assert not [thread for thread in own if thread.is_alive()]


def test_a_piece_that_became_whole_before_it_is_asked_for(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when another process brings its last bytes: nothing is asked for, least of all an empty range."""
    take = pieces_module.Pieces.take

    def taken(self: Any, owner: object, place: Any) -> Any:
        piece = take(self, owner, place)
        if piece is not None and piece.index == 3:
            with (tmp_path / part_name(tmp_path)).open("r+b") as part:
                part.seek(piece.start)
                part.write(CONTENT[piece.start : piece.end])
            piece.at = piece.end
        return piece

    monkeypatch.setattr(pieces_module.Pieces, "take", taken)
    pull(tmp_path, Source(server.url))
    assert right(tmp_path)
    assert not [one for one in server.requests if one.ranged and one.start == 3 * CHUNK]


def part_name(folder: Path) -> str:
    (name,) = [name for name in os.listdir(folder) if name.endswith(".part")]
    return name
