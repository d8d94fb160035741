"""An OpenAI-compatible provider on loopback, over real sockets, that does what a test tells it to."""

from tests.loopback.reply import Disconnect, Phase, Reply, Request, ToolCall
from tests.loopback.server import Loopback

__all__ = ["Disconnect", "Loopback", "Phase", "Reply", "Request", "ToolCall"]
