"""Screens that show a run to a person while it runs. Each is a module with an extra of its own.

``rxflow.screens.terminal`` draws in a terminal, ``rxflow.screens.notebook`` in a notebook, and ``rxflow.screens.web``
serves a web page.
"""
