"""What a client may cost the server, in one place. Reads and writes nothing."""

from __future__ import annotations

import resource
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the server; docs/serving.md lists them for its users.

    Attributes:
        body_bytes: of one request, counted as they arrive.
        body_seconds: until a body must have arrived.
        bodies: read at a time, so that bodies hold `bodies * body_bytes` at most.
        header_bytes: of request line and headers together.
        idle_seconds: a connection may be open without a whole request, whether it sends nothing or
            a byte now and then.
        write_seconds: a client may take nothing of what waits for it.
        request_seconds: from the request to the end of its answer.
        connections: open at a time; beyond, the one that is idle for longest is closed.
        choices: completions that one request asks for: prompts times n.
        scores: log-probabilities of a request: tokens times one more than the alternatives; each
            takes about 200 bytes.
        pending: pieces of a completion that wait for a slow reader before it is cut off.
        silence_seconds: after which a stream that has nothing to say sends a comment, for proxies
            that hang up on silence.
        drain_seconds: that what runs may go on for after the first signal to stop.
    """

    body_bytes: int = 2 << 20
    body_seconds: float = 30
    bodies: int = 32
    header_bytes: int = 16 << 10
    idle_seconds: float = 30
    write_seconds: float = 30
    request_seconds: float = 600
    connections: int = 512
    choices: int = 32
    scores: int = 1 << 20
    pending: int = 1024
    silence_seconds: float = 15
    drain_seconds: float = 30

    def connections_here(self) -> int:
        """Return `connections`, or less where the system allows few open files (macOS: 256)."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return (
            self.connections
            if files == resource.RLIM_INFINITY
            else max(16, min(self.connections, files // 2))
        )
