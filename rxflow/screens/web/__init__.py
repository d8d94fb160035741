"""A web page and an HTTP API for flows: an ASGI application.

Needs ``rxflow[web]``. ::

    app = web.create_app(Trip)                        # mount the app, or pass it to any ASGI server
    web.serve(Trip, host="127.0.0.1", port=8000)      # or serve it in this process
"""

from rxflow.screens.web.app import Limits, create_app
from rxflow.screens.web.server import serve

__all__ = ["Limits", "create_app", "serve"]
