"""Screens: what a person looks at while a run goes on. Each is a module of its own, with an extra of its own.

``rxflow.screens.terminal`` draws in a terminal, ``rxflow.screens.notebook`` in a notebook.
"""
