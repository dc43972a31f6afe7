"""Frames of WebSockets, right and wrong, byte by byte: what the Autobahn suite asks of a server."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import socket
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from support.harness import DEADLINE, ServdProcess, servd_for

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "bytes" if message.get("bytes") is not None else "text"
        await send({"type": "websocket.send", kind: message[kind]})
"""
WS = ("websockets-sansio", "websockets", "wsproto")
CONFIG = '[defaults]\ntimeouts.drain = "1s"\n' + "".join(
    f"""
    [services.{ws}]
    app = "main:app"
    listen = "127.0.0.1:0"
    interface = "asgi3"
    uvicorn = {{ ws = "{ws}", ws_max_size = 4194304 }}
    """
    for ws in WS
)
MORE, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Frame(NamedTuple):
    """A frame as it goes over the line; one that came has no mask."""

    opcode: int
    payload: bytes = b""
    final: bool = True
    reserved: int = 0

    def masked(self) -> bytes:
        """The bytes that a client sends."""
        mask = os.urandom(4)
        pad = mask * (len(self.payload) // 4 + 1)
        size = len(self.payload)
        hidden = int.from_bytes(self.payload, "big") ^ int.from_bytes(pad[:size], "big")
        return self.head(0x80) + mask + hidden.to_bytes(size, "big")

    def head(self, mask: int = 0) -> bytes:
        first = self.final << 7 | self.reserved << 4 | self.opcode
        size = len(self.payload)
        if size < 126:
            return struct.pack("!BB", first, mask | size)
        if size < 65536:
            return struct.pack("!BBH", first, mask | 126, size)
        return struct.pack("!BBQ", first, mask | 127, size)


def close(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, struct.pack("!H", code) + reason)


Sent = Sequence[Frame | bytes]


class Case(NamedTuple):
    """What is sent, the messages that come, what is sent then, and the code of the end."""

    name: str
    sent: Sent
    answers: Sequence[Frame] = ()
    codes: tuple[int | None, ...] = (1000,)
    last: Sent = ()


def echoed(name: str, *frames: Frame, answers: Sequence[Frame] | None = None) -> Case:
    """Frames, each of which comes back, and a good end."""
    return Case(name, frames, frames if answers is None else answers, last=[close(1000)])


def refused(name: str, code: int, *sent: Frame | bytes, answers: Sequence[Frame] = ()) -> Case:
    return Case(name, sent, answers, (code,))


def cases() -> Iterator[Case]:
    hello = Frame(TEXT, b"Hello")
    for size in (0, 1, 125, 126, 127, 128, 65535, 65536):
        yield echoed(f"text-{size}", Frame(TEXT, b"*" * size))
        yield echoed(f"binary-{size}", Frame(BINARY, b"\xfe" * size))
    yield echoed("a-mebibyte", Frame(BINARY, os.urandom(2**20)))
    yield from pings(hello)
    yield from broken_frames(hello)
    yield from fragments(hello)
    yield from code_points()
    yield from ends(hello)
    big = Frame(BINARY, b"x" * (4 * 2**20 + 1))
    yield refused("too-big", 1009, big)
    part = Frame(BINARY, b"x" * 2**20, final=False)
    rest = [Frame(MORE, b"x" * 2**20, final=False)] * 4
    yield refused("too-big-in-parts", 1009, part, *rest)


def pings(hello: Frame) -> Iterator[Case]:
    for payload in (b"", b"Hello", b"\x00\xff\xfe\xfd", b"\xfe" * 125):
        yield echoed(f"ping-{len(payload)}", Frame(PING, payload), answers=[Frame(PONG, payload)])
    yield refused("ping-126", 1002, Frame(PING, b"\xfe" * 126))
    yield echoed("pong-unasked", Frame(PONG, b"?"), hello, answers=[hello])
    ten = [Frame(PING, b"%d" % number) for number in range(10)]
    yield echoed("pings-10", *ten, answers=[Frame(PONG, each.payload) for each in ten])


def broken_frames(hello: Frame) -> Iterator[Case]:
    for reserved in range(1, 8):
        yield refused(
            f"reserved-bits-{reserved}", 1002, hello, hello._replace(reserved=reserved),
            answers=[hello],
        )  # fmt: skip
    yield refused("reserved-bits-of-ping", 1002, Frame(PING, b"", reserved=4))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield refused(f"opcode-{opcode}", 1002, hello, Frame(opcode, b"x"), answers=[hello])
    yield refused("no-mask", 1002, hello.head() + hello.payload)
    yield refused("ping-without-mask", 1002, Frame(PING, b"x").head() + b"x")


def fragments(hello: Frame) -> Iterator[Case]:
    start, end = Frame(TEXT, b"Hel", final=False), Frame(MORE, b"lo")
    ping, pong = Frame(PING, b"now"), Frame(PONG, b"now")
    yield refused("fragmented-ping", 1002, ping._replace(final=False), Frame(MORE, b""))
    yield refused("fragmented-pong", 1002, pong._replace(final=False), Frame(MORE, b""))
    yield refused("fragmented-close", 1002, close(1000)._replace(final=False))
    yield echoed("two-parts", start, end, answers=[hello])
    yield echoed("ping-between", start, ping, end, answers=[pong, hello])
    parts = [Frame(MORE, b"", final=False)] * 3
    yield echoed("empty-parts", Frame(TEXT, b"", final=False), *parts, Frame(MORE), hello,
                 answers=[Frame(TEXT, b""), hello])  # fmt: skip
    yield refused("part-of-nothing", 1002, end)
    yield refused("open-part-of-nothing", 1002, end._replace(final=False), hello)
    yield refused("part-after-the-last", 1002, start, end, end, answers=[hello])
    yield refused("text-within-text", 1002, start, hello)
    yield refused("binary-within-text", 1002, start, Frame(BINARY, b"x"))
    many = [Frame(MORE, b"x" * 1024, final=False)] * 255
    yield echoed("256-parts", Frame(BINARY, b"x" * 1024, final=False), *many, Frame(MORE),
                 answers=[Frame(BINARY, b"x" * 2**18)])  # fmt: skip


GOOD_TEXTS = ["κόσμε", "\x00", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd",
              "\ufffe", "\uffff", "\U00010000", "\U0010ffff", "Hello-µ@ßöäüàá-UTF-8!!"]  # fmt: skip
BAD_TEXTS = [
    "80", "bf", "80bf80", "c020", "c3", "e0", "f0", "f8", "fc", "fe", "ff", "fffe", "c0af",
    "e080af", "f08080af", "f8808080af", "fc80808080af", "c1bf", "e09fbf", "f08fbfbf", "eda080",
    "edadbf", "edae80", "edafbf", "edbfbf", "eda080edb080", "f4908080", "f7bfbfbf",
    "cebae1bdb9cf83cebcceb5eda080656469746564", "cebae1bdb9cf83cebcceb5f4908080656469746564",
]  # fmt: skip


def code_points() -> Iterator[Case]:
    for text in GOOD_TEXTS:
        whole = text.encode()
        yield echoed(f"utf-8-{whole.hex()}", Frame(TEXT, whole))
        pieces = [bytes([byte]) for byte in whole]
        frames = [Frame(MORE, piece, final=False) for piece in pieces[1:]]
        yield echoed(
            f"utf-8-in-bytes-{whole.hex()}", Frame(TEXT, pieces[0], final=False), *frames,
            Frame(MORE), answers=[Frame(TEXT, whole)],
        )  # fmt: skip
    for text in BAD_TEXTS:
        payload = bytes.fromhex(text)
        yield refused(f"not-utf-8-{text}", 1007, Frame(TEXT, payload))
        yield refused(
            f"not-utf-8-in-parts-{text}", 1007, Frame(TEXT, payload[:1], final=False),
            Frame(MORE, payload[1:]),
        )  # fmt: skip


def ends(hello: Frame) -> Iterator[Case]:
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield refused(f"end-{code}", code, close(code))
    for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535):
        yield refused(f"no-end-{code}", 1002, close(code))
    yield Case("end-without-code", [Frame(CLOSE)], (), (None,))
    yield refused("end-of-1-byte", 1002, Frame(CLOSE, b"\x03"))
    yield refused("end-123", 1000, close(1000, b"x" * 123))
    yield refused("end-124", 1002, close(1000, b"x" * 124))
    yield refused("end-not-utf-8", 1007, close(1000, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"))
    yield refused("twice", 1000, close(1000), close(1000))
    yield refused("ping-after-the-end", 1000, close(1000), Frame(PING, b"x"))
    yield refused("text-after-the-end", 1000, close(1000), hello)
    half = hello._replace(final=False)
    sent = [half, close(1000), Frame(MORE, b"x")]
    yield Case("part-after-the-end", sent, (), (1000, 1002))  # the message is unfinished


CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    for servd in servd_for(tmp_path_factory.mktemp("frames")):
        yield servd(CONFIG, main_py=APP).ready()


class Client:
    """A client that sends what it is told and reads frames."""

    def __init__(self, daemon: ServdProcess, name: str, **more: str) -> None:
        url = urlsplit(daemon.url(name))
        self.socket = socket.create_connection((url.hostname, url.port), DEADLINE)
        key = base64.b64encode(os.urandom(16)).decode()
        fields = {
            "Host": "x", "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.socket.sendall(f"GET / HTTP/1.1\r\n{head}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.head = b"".join(iter(self.file.readline, b"\r\n"))
        assert self.head.startswith(b"HTTP/1.1 101 "), self.head

    def frame(self) -> Frame | None:
        """The next frame; None after the last."""
        try:
            start = self.file.read(2)
        except ConnectionResetError:
            return None
        if len(start) < 2:
            return None
        first, size = start
        assert not size & 0x80, "a server masks nothing"
        if size == 126:
            (size,) = struct.unpack("!H", self.file.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.file.read(8))
        return Frame(first & 15, self.file.read(size), bool(first & 0x80), first >> 4 & 7)

    def send(self, sent: Sent, at_once: int = 2**30) -> None:
        """Sends frames, in pieces of so many bytes; no more when the server has ended it."""
        whole = on_the_line(sent)
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(whole), at_once):
                self.socket.sendall(whole[start : start + at_once])

    def finish(self, case: Case) -> None:
        """Reads the answers, sends what comes last, and judges all."""
        found = self.messages(len(case.answers)) if case.answers and case.last else []
        self.send(case.last)
        judge(case, found + self.messages())

    def messages(self, most: int = 0) -> list[Frame]:
        """All messages and control frames to the end, or the first `most`."""
        found: list[Frame] = []
        for frame in iter(self.frame, None):
            if frame.opcode == MORE:
                last = found.pop()
                found.append(last._replace(payload=last.payload + frame.payload, final=frame.final))
            else:
                found.append(frame)
            if len(found) == most and found[-1].final:
                return found
        self.file.close()
        self.socket.close()
        return found


def on_the_line(sent: Sent) -> bytes:
    return b"".join(each.masked() if isinstance(each, Frame) else each for each in sent)


def judge(case: Case, found: list[Frame]) -> None:
    """A failed connection may leave out echoes before its end, as Autobahn has it."""
    assert found, "it ended without a closing frame"
    *answers, end = found
    assert end.opcode == CLOSE
    code = struct.unpack("!H", end.payload[:2])[0] if end.payload else None
    assert code in case.codes
    assert answers == list(case.answers) or (code in (1002, 1007, 1009) and not answers)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("ws", WS)
def test_frames_are_read_as_the_standard_has_it(daemon: ServdProcess, ws: str, name: str) -> None:
    client = Client(daemon, ws)
    client.send(CASES[name].sent)
    client.finish(CASES[name])


CHOPPED = ["text-128", "ping-125", "ping-between", "utf-8-cebacf8ccf83cebcceb5", "end-123",
           "not-utf-8-eda080", "opcode-3", "twice"]  # fmt: skip


@pytest.mark.parametrize("name", CHOPPED)
@pytest.mark.parametrize("ws", WS)
def test_frames_may_come_byte_by_byte(daemon: ServdProcess, ws: str, name: str) -> None:
    client = Client(daemon, ws)
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.send(CASES[name].sent, at_once=1)
    client.finish(CASES[name])


DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}


def deflated(payload: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
        b"\x00\x00\xff\xff"
    )


@pytest.mark.parametrize("ws", WS)
def test_compressed_messages_come_back(daemon: ServdProcess, ws: str) -> None:
    client = Client(daemon, ws, **DEFLATE)
    assert b"permessage-deflate" in client.head
    sizes = (0, 16, 64, 256, 1024, 65536, 131072)
    texts = [b"Hello, servd. "[: size % 15] + b"*" * size for size in sizes]
    packed = [Frame(TEXT, deflated(text), reserved=4) for text in texts]
    halves = [
        Frame(TEXT, deflated(b"in parts")[:4], final=False, reserved=4),
        Frame(MORE, deflated(b"in parts")[4:]),
    ]
    client.send([*packed, Frame(TEXT, b"plain"), *halves])
    answers = client.messages(len(texts) + 2)
    client.send([close(1000)])
    assert client.messages() == [close(1000)]
    unpacker = zlib.decompressobj(wbits=-15)
    said = [
        unpacker.decompress(each.payload + b"\x00\x00\xff\xff") if each.reserved else each.payload
        for each in answers
    ]
    assert said == [*texts, b"plain", b"in parts"]


@pytest.mark.parametrize(
    ("name", "sent", "codes"),
    [
        ("garbage", [Frame(BINARY, b"\xff" * 64, reserved=4)], (1002, 1007)),
        ("bit-on-a-part", [Frame(TEXT, b"a", final=False), Frame(MORE, b"b", reserved=4)], (1002,)),
        ("bit-on-a-ping", [Frame(PING, b"", reserved=4)], (1002,)),
        ("bomb", [Frame(BINARY, deflated(b"\x00" * 2**26), reserved=4)], (1009,)),
    ],
)
@pytest.mark.parametrize("ws", WS)
def test_compression_is_refused_where_it_is_wrong(
    daemon: ServdProcess, ws: str, name: str, sent: Sent, codes: tuple[int, ...]
) -> None:
    client = Client(daemon, ws, **DEFLATE)
    client.send(sent)
    *_, end = client.messages()
    assert end.opcode == CLOSE
    assert struct.unpack("!H", end.payload[:2])[0] in codes


@pytest.mark.parametrize("ws", WS)
def test_a_worker_serves_on_after_all_that(daemon: ServdProcess, ws: str) -> None:
    """Connections that vanish in the middle of a frame, too."""
    before = daemon.pids(ws)
    whole = on_the_line([Frame(TEXT, b"x" * 200)])
    for cut in itertools.chain(range(1, 16), (100, len(whole))):
        client = Client(daemon, ws)
        client.socket.sendall(whole[:cut])
        client.file.close()
        client.socket.close()
    client = Client(daemon, ws)
    client.send(CASES["two-parts"].sent)
    client.finish(CASES["two-parts"])
    assert daemon.pids(ws) == before
    assert not daemon.lines("Exception in ASGI application", service=ws)
