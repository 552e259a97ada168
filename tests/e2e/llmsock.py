# SPDX-License-Identifier: MIT
"""The socket protocol of uapi/llm.h and docs/abi.md, written a second time for tests: what
libllmdev never sends can be sent with this."""
import select  # noqa: F401 (for those who wait for several clients)
import socket
import struct

SESSION_OPEN, SESSION_CLOSE, SUBMIT, CANCEL, RESUME, QUIESCE, REPLAY_END, QUERY, STATUS = range(1, 10)
STARTED, PROGRESS, TEXT, DATA, DONE, ERROR, INFO, STATUS_IS = range(1, 9)
F_REPLAY, F_FINISHED, F_LOST = 1, 2, 4
FORMAT_TEXT, FORMAT_JSON = 1, 2
STOP, LENGTH, CANCELLED = 1, 2, 3
REASONING, TOOL_CALL, MALFORMED, ASIDE, LOGPROBS, JSON = 1, 2, 3, 0x100, 0x101, 0x102
MORE = 1
CHUNK = 32768


def pad(b):
    return b + b"\0" * (-len(b) % 8)


def message(kind, request=0, body=b"", flags=0, size=None):
    if size is None:
        size = 32 + len(body)
    return struct.pack("<IIIIQQ", size, flags, kind, 0, 0, request) + body


def submit(request, payload, fmt=FORMAT_JSON, flags=0, max_tokens=0, priority=0, deadline=0,
           principal=b"", resume=b"", ids=(), finish=0, posted_bytes=0, seq=0, reasoning=False):
    body = struct.pack("<IIQQIi16s8sIIIIQQ", fmt, int(reasoning), len(payload), deadline, max_tokens, priority,
                       b"", b"", len(principal), len(resume), len(ids), finish, posted_bytes, seq)
    body += pad(payload) + pad(principal) + pad(resume)
    body += pad(struct.pack("<%di" % len(ids), *ids))
    return message(SUBMIT, request, body, flags)


class Event:
    def __init__(self, record):
        _, _, self.kind, length, self.request, self.seq = struct.unpack_from("<IIIIQQ", record)
        p = self.payload = record[32:32 + length]
        self.ids, self.text = (), b""
        if self.kind in (TEXT, DATA):
            n_ids, n_bytes, self.subtype, self.flags = struct.unpack_from("<IIII", p)
            self.ids = struct.unpack_from("<%di" % n_ids, p, 16)
            self.text = p[16 + 4 * n_ids:]
            assert len(self.text) == n_bytes
        elif self.kind == DONE:
            (self.finish, n_bytes, self.prompt_tokens, self.cached_tokens,
             self.completion_tokens) = struct.unpack_from("<IIIII", p)
            self.text = p[56:]
            assert len(self.text) == n_bytes
        elif self.kind == ERROR:
            self.error, n_bytes = struct.unpack_from("<iI", p)
            self.text = p[8:]
            assert len(self.text) == n_bytes


class Client:
    def __init__(self, path, timeout=20):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.connect(path)  # may stand in line: not with a timeout, which would not
        self.s.settimeout(timeout)
        self.events = []

    def send(self, msg):
        for i in range(0, len(msg), CHUNK):
            self.s.send(msg[i:i + CHUNK])

    def next(self):
        """The next event; None when the daemon has closed the connection."""
        while not self.events:
            try:
                packet = self.s.recv(1 << 17)
            except ConnectionResetError:
                continue  # what had arrived comes next
            if not packet:
                return None
            assert len(packet) <= 32768
            while packet:
                size = struct.unpack_from("<I", packet)[0]
                assert size % 8 == 0 and 32 <= size <= len(packet)
                self.events.append(Event(packet[:size]))
                packet = packet[size:]
        return self.events.pop(0)

    def answer(self, request):
        """All events of the request, up to its terminal one."""
        got = []
        while True:
            ev = self.next()
            if ev is None:
                raise EOFError("closed before the end of request %d" % request)
            if ev.request != request:
                continue
            got.append(ev)
            if ev.kind in (DONE, ERROR):
                return got

    def close(self):
        self.s.close()


def text(events):
    return b"".join(e.text for e in events if e.kind in (TEXT, DONE))


def ids(events):
    return [i for e in events if e.kind in (TEXT, DATA) for i in e.ids]
