import os
import time
from pathlib import Path

import pytest

from servd.config.env_file import read_env_file
from servd.config.http_file import (
    MAX_BYTES,
    RequestFile,
    RequestFileError,
    parse_request_file,
    read_request_file,
)
from servd.core.regular_file import open_regular


@pytest.mark.parametrize(
    ("content", "request_"),
    [
        (b"GET /", RequestFile("GET", "/")),
        (b"GET /healthz HTTP/1.1\n", RequestFile("GET", "/healthz")),
        (
            b"# a comment\n\nPOST /v1/predict?x=1 HTTP/2\nAccept: a: b \nX-Empty:\n\n{}\n\nrest\n",
            RequestFile(
                "POST",
                "/v1/predict?x=1",
                (("Accept", "a: b"), ("X-Empty", "")),
                b"{}\n\nrest\n",
            ),
        ),
        (
            b"\xef\xbb\xbfPOST /\r\nA: 1\r\n\r\n--x\r\n\x00\xff\r\n",
            RequestFile("POST", "/", (("A", "1"),), b"--x\r\n\x00\xff\r\n"),
        ),
        (b"POST /\n\nbody", RequestFile("POST", "/", (), b"body")),
    ],
)
def test_a_request_is_a_line_headers_and_a_body(content: bytes, request_: RequestFile) -> None:
    assert parse_request_file(content) == request_


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"", 1, "expected a request line such as POST /v1/predict"),
        (b"# only\n# comments\n", 2, "expected a request line such as POST /v1/predict"),
        (b"\n{}", 2, "expected a request line such as POST /v1/predict"),
        (b"get /\n", 1, "expected a request line such as POST /v1/predict"),
        (b"GET http://host/\n", 1, "expected a path that begins with / after the method"),
        (b"GET /a\x7f\n", 1, "expected a path that begins with / after the method"),
        (b"GET / HTTPS\n", 1, "expected HTTP/1.1, or nothing, after the path"),
        (b'POST /\n{"a": 1}\n', 2, "expected a header such as Accept: text/plain"),
        (b"POST /\nA: 1\n folded\n", 3, "expected a header such as Accept: text/plain"),
        (b"POST /\nToken: hunter2\x07\n", 2, "the value of Token contains a control character"),
        (b"POST /\nA: 1\rB: 2\n", 2, "the value of A contains a control character"),
        (b"POST /\nContent-length: 2\n\n{}", 2, "servd sets Content-length itself"),
        (b"x" * (MAX_BYTES + 1), 1, "is larger than 16 MiB"),
    ],
)
def test_a_mistake_has_its_line_and_shows_no_value(content: bytes, line: int, message: str) -> None:
    with pytest.raises(RequestFileError) as error:
        parse_request_file(content)
    assert (error.value.line, str(error.value)) == (line, message)


def test_a_request_is_sent_with_what_the_file_leaves_out() -> None:
    request = RequestFile("POST", "/a?key=1", (("X-A", "\xe9"),), b'{"a": 1}', is_json=True)
    assert request.encoded("example.com") == (
        b"POST /a?key=1 HTTP/1.1\r\nX-A: \xe9\r\nHost: example.com\r\nUser-Agent: servd\r\n"
        b"Content-Type: application/json\r\nContent-Length: 8\r\nConnection: close\r\n\r\n"
        b'{"a": 1}'
    )
    assert request.shown == "POST /a"
    assert b"Content-" not in RequestFile("GET", "/").encoded()
    assert b"\r\nContent-Length: 0\r\n" in RequestFile("POST", "/").encoded()


def test_a_body_of_json_is_known_as_such() -> None:
    assert parse_request_file(b'POST /\n\n{"a": 1}\n').is_json
    assert not parse_request_file(b"POST /\n\n{").is_json
    assert not parse_request_file(b"POST /").is_json


def test_a_file_of_many_lines_costs_no_more_than_its_size() -> None:
    before = time.process_time()
    with pytest.raises(RequestFileError) as error:
        parse_request_file(b"#\n" * (MAX_BYTES // 2))
    assert error.value.line == MAX_BYTES // 2
    assert time.process_time() - before < 60  # hours, if each line copied the rest


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (read_request_file, read_env_file, open_regular):
        with pytest.raises(OSError, match="it is a pipe: name a file"):
            read(str(tmp_path / "pipe"))
    with pytest.raises(OSError, match="it is a folder"):
        open_regular(str(tmp_path))
    assert read_env_file(os.devnull) == {}


def test_headers_of_the_file_go_before_the_defaults() -> None:
    headers = (("host", "a"), ("user-agent", "b"), ("content-type", "text/plain"))
    sent = RequestFile("POST", "/", headers, b"1").encoded("c").decode()
    assert sent.lower().count("host:") == sent.lower().count("agent:") == 1
    assert sent.count("application/json") == 0
