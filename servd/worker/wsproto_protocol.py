"""Uvicorn's protocol for wsproto, with what it leaves out: a frame that breaks the rules ends the
connection with the code that says so (RFC 6455, 7.1.7). Uvicorn closes it without a word, since it
answers closing frames of the client alone (seen with uvicorn 0.54, wsproto 1.3.2).
"""

from __future__ import annotations

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection


class WsprotoProtocol(WSProtocol):
    """A WebSocket that says why it ends."""

    def handle_close(self, event: CloseConnection) -> None:
        """Answers the client's closing frame, or tells it what was wrong."""
        if not self.close_sent and self.conn.state is ConnectionState.OPEN:
            said = CloseConnection(code=event.code, reason=event.reason)
            self.transport.write(self.conn.send(said))
        super().handle_close(event)
