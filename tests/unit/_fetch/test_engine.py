# SPDX-FileCopyrightText: gpufleet.llamacpp contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches from servers that fail in every way that the engine handles."""

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
from ansible_collections.gpufleet.llamacpp.plugins.module_utils._fetch.source import Retry, Upstream
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
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
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


def no_leftovers(folder: Path) -> bool:
    return os.listdir(folder) == ["file"]


def complete(folder: Path) -> bool:
    """The file is there, and nothing beside it."""
    return no_leftovers(folder) and (folder / "file").read_bytes() == CONTENT


def test_fetches_in_ranges(tmp_path: Path, server: FaultServer) -> None:
    fetched = pull(tmp_path, Source(server.url))
    assert complete(tmp_path)
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


def test_connections_are_reused(tmp_path: Path, server: FaultServer) -> None:
    pull(tmp_path, Source(server.url), connections=2)
    assert server.connections <= 3  # and one for the request of the first byte


def test_an_empty_file(tmp_path: Path) -> None:
    with FaultServer(b"") as server:
        fetched = pull(tmp_path, Source(server.url), size=0, sha256=hashlib.sha256(b"").hexdigest())
    assert fetched.size == 0 and (tmp_path / "file").read_bytes() == b"" and no_leftovers(tmp_path)


def test_an_unknown_size(tmp_path: Path, server: FaultServer) -> None:
    assert pull(tmp_path, Source(server.url), size=None).size == len(CONTENT)
    assert complete(tmp_path)


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, server: FaultServer) -> None:
    (tmp_path / "file").write_bytes(b"old")
    server.faults.add(data_only(status(404)))
    with pytest.raises(FetchError, match="404"):
        pull(tmp_path, Source(server.url))
    assert (tmp_path / "file").read_bytes() == b"old"
    old = (tmp_path / "file").open("rb")
    server.faults.waiting.clear()
    pull(tmp_path, Source(server.url))
    assert complete(tmp_path)
    assert old.read() == b"old"


def test_a_wrong_sha256_leaves_nothing(tmp_path: Path, server: FaultServer) -> None:
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
        (
            header("Content-Range", f"bytes 0-{CHUNK - 1}/{len(CONTENT) + 1}"),
            f"has {len(CONTENT) + 1} bytes",
        ),
        (lambda request, reply: Reply(416, {"Content-Range": "bytes */5"}, b""), "416"),
    ],
)
def test_what_is_not_retried(tmp_path: Path, server: FaultServer, fault: Any, words: str) -> None:
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
def test_what_is_retried(tmp_path: Path, server: FaultServer, fault: Any) -> None:
    server.faults.add(data_only(fault), times=3)
    fetched = pull(tmp_path, Source(server.url), connections=1)
    assert complete(tmp_path)
    assert fetched.retries == 3


@pytest.mark.parametrize(
    "fault", [status(500), short(0), header("Content-Range", None), status(200, b"<html>", Content_Type="text/html")]
)
def test_retries_end(tmp_path: Path, server: FaultServer, fault: Any) -> None:
    server.faults.add(data_only(fault))
    with pytest.raises(FetchError, match=f"{source_module.TRIES_UNPROVEN} tries"):
        pull(tmp_path, Source(server.url), connections=1)
    assert len(server.data_requests) == source_module.TRIES_UNPROVEN


def test_every_new_byte_resets_the_count_of_failures(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(short(20_000)))  # every request of the whole fetch
    fetched = pull(tmp_path, Source(server.url))
    assert complete(tmp_path)
    assert fetched.retries > 2 * source_module.TRIES_PROVEN
    assert fetched.bytes_fetched == len(CONTENT)


def test_a_server_may_send_less_than_the_range(tmp_path: Path, server: FaultServer) -> None:
    def half(request: Request, reply: Reply) -> Reply:
        end = request.start + 10_000
        return Reply(206, {"Content-Range": f"bytes {request.start}-{end - 1}/{len(CONTENT)}"}, reply.body[:10_000])

    server.faults.add(data_only(half), times=5)
    assert pull(tmp_path, Source(server.url)).retries == 0
    assert complete(tmp_path)


def test_a_stalled_connection_is_closed(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(stalled(30.0)), times=2)
    fetched = pull(tmp_path, Source(server.url), timeout=0.5)
    assert complete(tmp_path)
    assert fetched.retries >= 1


def test_a_trickling_connection_is_closed(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(trickling(0.05)), times=4)
    fetched = pull(tmp_path, Source(server.url), timeout=0.5)
    assert complete(tmp_path)
    assert fetched.retries >= 4


def test_a_server_that_trickles_on_all_connections(tmp_path: Path, server: FaultServer) -> None:
    server.faults.add(data_only(trickling(0.05)))
    words = f"sent less than {16 << 10} bytes in 0.5 s \\({source_module.TRIES_UNPROVEN} tries\\)"
    with pytest.raises(FetchError, match=words):
        pull(tmp_path, Source(server.url), timeout=0.5)


def test_a_mirror_that_trickles_is_dropped(tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
    mirror.faults.add(data_only(trickling(0.05)))
    server.rate = 200e3
    fetched = pull(tmp_path, Source(server.url), Source(mirror.url), timeout=0.5, chunk=CHUNK // 2)
    assert complete(tmp_path)
    assert fetched.bytes_from_mirrors == 0 and fetched.retries >= 1


def test_retry_after_is_honoured(tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float | None] = []
    failed = Upstream.failed

    def seen(self: Any, failure: Retry, *rest: Any) -> None:
        pauses.append(failure.after)
        failed(self, Retry(str(failure), 0.0 if failure.after else None), *rest)

    monkeypatch.setattr(Upstream, "failed", seen)
    server.faults.add(data_only(status(503, Retry_After="7")), times=1)
    server.faults.add(data_only(status(429, RateLimit='"resolvers";r=0;t=9')), times=1)
    server.faults.add(data_only(status(500, Retry_After="11")), times=1)
    pull(tmp_path, Source(server.url), connections=1)
    assert pauses == [7.0, 9.0, None]


def test_retry_after_is_bounded() -> None:
    upstream = Upstream(Source("http://a/b"), False)
    upstream.failed(Retry("busy", 1e9), 1e-9, 0, False)
    assert upstream.not_before - upstream._failed_at == pytest.approx(source_module.RETRY_AFTER_MAX)


def test_one_outage_is_one_failure() -> None:
    upstream = Upstream(Source("http://a/b"), False)
    for _worker in range(50):
        upstream.failed(Retry("connection reset"), 1e-9, 0, False)
    assert upstream.dropped is None


def test_no_server(tmp_path: Path) -> None:
    with FaultServer(CONTENT) as server:
        url = server.url
    with pytest.raises(FetchError, match=rf"{url}: Connection refused \(5 tries\)"):
        pull(tmp_path, Source(url))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/file", "http://"])
def test_an_invalid_url(tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match="no source has the file"):
        pull(tmp_path, Source(url))


def test_invalid_arguments_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as failure:
        fetch([], str(tmp_path / "none" / "file"), size=1, sha256="abc", ca_path="/no/such/bundle", connections=-5)
    for words in ("no source", "none does not exist", "'abc' is not 64", "/no/such/bundle do not exist", "is -5, "):
        assert words in str(failure.value)


def test_errors_name_the_shown_path(tmp_path: Path, server: FaultServer) -> None:
    """They never name the destination, which may be a staging path."""
    with pytest.raises(FetchError) as failure:
        pull(tmp_path, Source(server.url), sha256="0" * 64, shown_path="/models/a.gguf")
    server.faults.add(data_only(status(404)))
    with pytest.raises(FetchError) as other:
        pull(tmp_path, Source(server.url), shown_path="/models/a.gguf")
    for error in (failure.value, other.value):
        (problem,) = error.problems
        assert problem.path == "/models/a.gguf"
        assert str(error).startswith("/models/a.gguf ") and str(tmp_path) not in str(error)


class TestWithoutRanges:
    def test_one_stream(self, tmp_path: Path) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            fetched = pull(tmp_path, Source(server.url))
            assert complete(tmp_path)
            assert fetched.bytes_fetched == len(CONTENT)
            assert len(server.requests) == 2

    def test_every_try_starts_at_the_first_byte(self, tmp_path: Path) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            server.faults.add(
                lambda request, reply: None if request.ranged else short(300_000)(request, reply), times=1
            )
            server.faults.add(
                lambda request, reply: None if request.ranged else short(700_000)(request, reply), times=1
            )
            fetched = pull(tmp_path, Source(server.url))
            assert complete(tmp_path)
            assert fetched.retries == 2
            assert fetched.bytes_fetched > len(CONTENT) + 700_000

    def test_without_progress_the_fetch_fails(self, tmp_path: Path) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            server.faults.add(lambda request, reply: None if request.ranged else short(300_000)(request, reply))
            with pytest.raises(FetchError, match="ended"):
                pull(tmp_path, Source(server.url))
            assert not (tmp_path / "file").exists()


class TestUnknownSha256:
    def test_is_computed(self, tmp_path: Path, server: FaultServer) -> None:
        fetched = pull(tmp_path, Source(server.url), sha256=None, size=None)
        assert (fetched.sha256, fetched.validator) == (SHA256, '"one"')
        assert complete(tmp_path)
        assert all(one.headers["If-Range"] == '"one"' for one in server.data_requests)

    def test_needs_a_validator(self, tmp_path: Path, server: FaultServer) -> None:
        server.etag = None
        with pytest.raises(FetchError, match="neither a strong ETag nor Last-Modified"):
            pull(tmp_path, Source(server.url), sha256=None)
        server.etag = 'W/"weak"'
        with pytest.raises(FetchError, match="neither a strong ETag nor Last-Modified"):
            pull(tmp_path, Source(server.url), sha256=None)

    def test_last_modified_is_a_validator(self, tmp_path: Path, server: FaultServer) -> None:
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
    def test_a_changed_file_is_fetched_from_the_start(self, tmp_path: Path, server: FaultServer, honest: bool) -> None:
        changed = CONTENT[::-1]

        def change(request: Request, reply: Reply) -> Reply | None:
            if request.start < 8 * CHUNK or server.etag == '"two"':
                return None
            server.content, server.etag = changed, '"two"'
            headers = {"ETag": '"two"'}
            if honest:  # If-Range works as in RFC 9110
                return Reply(200, headers, changed)
            headers["Content-Range"] = f"bytes {request.start}-{request.end - 1}/{len(changed)}"
            return Reply(206, headers, changed[request.start : request.end])

        server.faults.add(data_only(change))
        fetched = pull(tmp_path, Source(server.url), sha256=None)
        assert (tmp_path / "file").read_bytes() == changed
        assert (fetched.sha256, fetched.validator) == (hashlib.sha256(changed).hexdigest(), '"two"')
        assert no_leftovers(tmp_path)

    def test_a_file_that_changes_all_the_time(self, tmp_path: Path, server: FaultServer) -> None:
        count = iter(range(1_000_000))

        def another(request: Request, reply: Reply) -> Reply:
            return header("ETag", f'"{next(count)}"')(request, reply)

        server.faults.add(another)
        with pytest.raises(FetchError, match="changed at its source"):
            pull(tmp_path, Source(server.url), sha256=None)
        assert os.listdir(tmp_path) == []

    def test_mirrors_are_not_trusted(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        pull(tmp_path, Source(server.url), Source(mirror.url), sha256=None)
        assert complete(tmp_path)
        assert mirror.requests == []


class TestSignedAddresses:
    """A hub that redirects to an address with an expiring signature."""

    def test_redirects_are_followed_once(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(redirect(lambda: f"{mirror.url}?Signature=abcdefgh"))
        pull(tmp_path, Source(server.url))
        assert complete(tmp_path)
        assert len(server.requests) <= 1 + 4

    def test_an_expired_address_is_replaced(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(redirect(lambda: f"{mirror.url}?n={len(server.requests)}"))
        seen: dict[str, int] = {}

        def expires(request: Request, reply: Reply) -> Reply | None:
            seen[request.path] = seen.get(request.path, 0) + 1
            return Reply(403, {}, b"Request has expired") if seen[request.path] > 5 else None

        mirror.faults.add(expires)
        fetched = pull(tmp_path, Source(server.url), connections=2)
        assert complete(tmp_path)
        assert fetched.retries >= 2
        assert fetched.bytes_fetched == len(CONTENT)

    @pytest.mark.parametrize("resolves", [True, False])
    def test_single_use_addresses(
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
        assert complete(tmp_path)
        assert fetched.bytes_fetched == len(CONTENT)
        # At worst each request tries the shared address first.
        rejections = len(mirror.requests) - len(used)
        assert 0 < rejections <= len(used)

    def test_an_address_for_many_requests_is_shared(
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
        assert complete(tmp_path)
        assert len(server.requests) == 1 + 3

    def test_resolve_gives_a_new_address(self, tmp_path: Path, server: FaultServer) -> None:
        asked: list[int] = []

        def resolve() -> tuple[str, dict[str, str]]:
            asked.append(1)
            return f"{server.url}?sig=good", {"X-Signed": "yes"}

        server.faults.add(lambda request, reply: None if "sig=good" in request.path else Reply(403, {}, b"expired"))
        pull(tmp_path, Source(f"{server.url}?sig=bad", {}, resolve))
        assert complete(tmp_path)
        assert asked == [1]
        assert all(one.headers.get("X-Signed") == "yes" for one in server.data_requests)

    @pytest.mark.parametrize("code", [401, 403])
    def test_a_permanent_rejection_says_why(self, tmp_path: Path, server: FaultServer, code: int) -> None:
        server.faults.add(data_only(status(code, b"You need to accept\n the license")))
        source = Source(server.url, {}, lambda: (server.url, {}))
        with pytest.raises(FetchError, match=f"HTTP {code} .*: You need to accept the license"):
            pull(tmp_path, source, connections=1)
        assert len(server.data_requests) == 2  # once more with the new address

    def test_no_new_address(self, tmp_path: Path, server: FaultServer) -> None:
        def resolve() -> tuple[str, dict[str, str]]:
            raise FetchError("the hub is closed")

        server.faults.add(data_only(status(403, b"expired")))
        with pytest.raises(FetchError, match="expired; and there is no new address: the hub is closed"):
            pull(tmp_path, Source(server.url, {}, resolve))


class TestSecrets:
    @pytest.mark.parametrize(
        ("url", "public"),
        [
            ("https://u:p@h:8443/a/b.gguf?token=secret#f", "https://h:8443/a/b.gguf"),
            ("http://h/a.gguf", "http://h/a.gguf"),
        ],
    )
    def test_are_in_no_public_address(self, url: str, public: str) -> None:
        assert source_module.public_address(url) == public

    def test_stay_with_their_origin(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(redirect(lambda: mirror.url))
        headers = {"Authorization": f"Bearer {SECRET}", "X-Key": SECRET}
        pull(tmp_path, Source(server.url, headers))
        assert complete(tmp_path)
        assert all(one.headers["Authorization"] == f"Bearer {SECRET}" for one in server.requests)
        assert mirror.requests and not any(SECRET in str(one.headers) for one in mirror.requests)

    def test_stay_on_a_redirect_of_the_same_origin(self, tmp_path: Path, server: FaultServer) -> None:
        server.faults.add(
            lambda request, reply: None if "new" in request.path else Reply(307, {"Location": "/new"}, b"")
        )
        pull(tmp_path, Source(server.url, {"Authorization": SECRET}))
        assert complete(tmp_path)
        assert all(one.headers["Authorization"] == SECRET for one in server.requests)

    def test_are_not_sent_after_a_redirect_back(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(
            lambda request, reply: None if "back" in request.path else Reply(302, {"Location": mirror.url}, b"")
        )
        mirror.faults.add(redirect(lambda: f"{server.url}/back"))
        pull(tmp_path, Source(server.url, {"Authorization": SECRET}))
        assert complete(tmp_path)
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
        assert complete(tmp_path)
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
        """A token that was read from a file with its line break."""
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
        assert complete(tmp_path)
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
        assert complete(tmp_path)
        assert fetched.bytes_from_mirrors == 0

    def test_they_replace_a_broken_source(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(status(404))
        fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert complete(tmp_path)
        assert fetched.bytes_from_mirrors == len(CONTENT)

    def test_a_file_of_another_size(self, tmp_path: Path, server: FaultServer) -> None:
        with FaultServer(CONTENT + b"!") as mirror:
            fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert complete(tmp_path)
        assert fetched.bytes_from_mirrors == 0

    def test_a_mirror_with_ranges_is_preferred(self, tmp_path: Path, mirror: FaultServer) -> None:
        with FaultServer(CONTENT, ranges=False) as server:
            fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert complete(tmp_path)
        assert fetched.bytes_from_mirrors == len(CONTENT)
        assert server.data_requests == []

    def test_a_wrong_byte_is_corrected(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.rate = mirror.rate = 2e6
        for offset in range(0, len(CONTENT), CHUNK):
            mirror.faults.add(flipped(offset + 77))
        fetched = pull(tmp_path, Source(server.url), Source(mirror.url))
        assert complete(tmp_path)
        assert fetched.bytes_from_mirrors > 0
        assert fetched.bytes_fetched == len(CONTENT) * 2

    def test_a_stalled_one_does_not_delay_the_end(
        self, tmp_path: Path, server: FaultServer, mirror: FaultServer
    ) -> None:
        mirror.faults.add(stalled(3600.0))
        pull(tmp_path, Source(server.url), Source(mirror.url), timeout=600.0)
        assert complete(tmp_path)

    def test_a_slow_one_is_dropped(self, tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error names it when the other source has lost the last chunk."""
        monkeypatch.setattr(engine, "SLOW_SECONDS", 0.0)
        monkeypatch.setattr(engine, "SLOW_FRACTION", 0.5)
        server.rate = 400e3
        server.faults.add(lambda request, reply: Reply(404, {}, b"") if request.end == len(CONTENT) else None)
        with FaultServer(CONTENT, rate=100e3) as mirror, pytest.raises(FetchError) as failure:
            pull(tmp_path, Source(server.url), Source(mirror.url), chunk=CHUNK // 2)
        assert f"{mirror.url}: slow: " in str(failure.value)

    def test_which_ones_are_slow(self) -> None:
        upstreams = [Upstream(Source(f"http://{name}/"), True) for name in ("fast", "fair", "slow", "new")]
        for upstream, (count, seconds) in zip(upstreams, [(10_000, 11.0), (1_100, 11.0), (1_000, 12.0), (1, 9.0)]):
            upstream.received(count, seconds)
        engine.drop_slow(upstreams)
        assert [upstream.dropped is None for upstream in upstreams] == [True, True, False, True]

    def test_all_are_named_when_all_are_broken(self, tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
        server.faults.add(status(404))
        mirror.faults.add(status(500))
        with pytest.raises(FetchError) as failure:
            pull(tmp_path, Source(server.url), Source(mirror.url))
        assert f"{server.url}: HTTP 404" in str(failure.value) and f"{mirror.url}: HTTP 500" in str(failure.value)


def test_the_rate_limit(tmp_path: Path, server: FaultServer) -> None:
    fetched = pull(tmp_path, Source(server.url), max_rate=4e6)
    assert complete(tmp_path)
    # A lower bound, so that a slow machine does not matter. The first bytes are not limited.
    assert fetched.seconds >= len(CONTENT) / 4e6 * 0.8


def test_progress(tmp_path: Path, server: FaultServer) -> None:
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
    assert complete(tmp_path)
    assert server.requests[0].path == "http://files.example/file"


def test_inspect(server: FaultServer) -> None:
    remote = inspect(Source(f"{server.url}?a=b"))
    assert (remote.size, remote.validator, remote.ranged, remote.url) == (len(CONTENT), '"one"', True, server.url)
    with pytest.raises(FetchError, match="expected 5"):
        inspect(Source(server.url), size=5)


def test_no_connection_stays_open_after_the_fetch(tmp_path: Path, server: FaultServer, mirror: FaultServer) -> None:
    """The requests to a slow mirror are aborted when the file is there."""
    mirror.faults.add(data_only(stalled(30.0)))
    pull(tmp_path, Source(server.url), Source(mirror.url), timeout=30.0)
    own = [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]
    for thread in own:
        thread.join(2.0)
    assert not [thread for thread in own if thread.is_alive()]


def test_a_piece_that_is_whole_before_its_request(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has written its last bytes. There is no request, above all not one for an empty range."""
    take = pieces_module.Pieces.take

    def taken(self: Any, owner: object, upstream: Any) -> Any:
        piece = take(self, owner, upstream)
        if piece is not None and piece.index == 3:
            with (tmp_path / part_name(tmp_path)).open("r+b") as part:
                part.seek(piece.start)
                part.write(CONTENT[piece.start : piece.end])
            piece.at, piece.buffer = piece.end, None
        return piece

    monkeypatch.setattr(pieces_module.Pieces, "take", taken)
    pull(tmp_path, Source(server.url))
    assert complete(tmp_path)
    assert not [one for one in server.requests if one.ranged and one.start == 3 * CHUNK]


def part_name(folder: Path) -> str:
    (name,) = [name for name in os.listdir(folder) if name.endswith(".part")]
    return name
