"""One answer on its way out: tokens come in, pieces of text with their scores go out. Reads and
writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from groundup.artifacts.tokenizer import Detokenizer
from groundup.engines.jobs import Finish, Piece, TokenScore
from groundup.engines.stop_strings import StopScanner


class Answer:
    """Text in whole characters and without stop strings, and the scores of its tokens in step with
    it.

    Args:
        stops: stop strings.
        byte_strings: those of the tokenizer.

    Attributes:
        prompt: scores of the prompt's tokens; they go out with the first piece.
    """

    def __init__(self, stops: Sequence[str], byte_strings: Sequence[bytes]) -> None:
        self._text = Detokenizer(byte_strings)
        self._scanner = StopScanner(stops)
        self._read = self._sent = self._count = 0
        self._ready = ""
        # Where each token begins and ends, in characters of the text.
        self._scores: deque[tuple[int, int, TokenScore]] = deque()
        self.prompt: list[TokenScore] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._scanner.found

    def add(self, token: int, score: TokenScore | None = None) -> None:
        """Go on with one more token."""
        begin, text = self._read, self._text.add(token)
        self._read += len(text)
        self._count += 1
        self._ready += self._scanner.add(text)
        if score is not None:
            # A token that leaves a character open goes out with the rest of it.
            self._scores.append((begin, self._read + self._text.pending, score))

    def piece(self) -> Piece | None:
        """Return what has been settled since the last piece, if anything has."""
        settled = self._sent + len(self._ready)
        tokens = []
        while self._scores and self._scores[0][1] <= settled:
            tokens.append(self._scores.popleft()[2])
        return self._send(tokens, None) if self._ready or tokens or self.prompt else None

    def end(self, finish: Finish) -> Piece:
        """Return the last piece, with all that was held back but a stop string."""
        self._ready += self._scanner.add(self._text.end())
        if not self.stopped:
            self._ready += self._scanner.end()
        elif finish == "length":
            finish = "stop"
        settled = self._sent + len(self._ready)
        return self._send(
            [score for begin, _, score in self._scores if begin < settled or not self.stopped],
            finish,
        )

    def _send(self, tokens: Sequence[TokenScore], finish: Finish | None) -> Piece:
        piece = Piece(self._ready, tuple(tokens), self._count, finish, tuple(self.prompt))
        self._sent += len(self._ready)
        self._ready, self._count, self.prompt = "", 0, []
        return piece
