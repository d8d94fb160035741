"""Screens that show a run to a person while it runs.

``rxflow.screens.terminal`` draws in a terminal, ``rxflow.screens.notebook`` draws in a notebook, and
``rxflow.screens.web`` serves a web page. Each needs the extra of the same name, such as ``rxflow[terminal]``.
"""
