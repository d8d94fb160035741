"""rxflow: flows of LLM agents as reactive streams."""

from rxflow.crew.agent import Agent
from rxflow.crew.crew import Crew
from rxflow.crew.process import Process
from rxflow.crew.task import Task
from rxflow.flow.flow import Flow
from rxflow.llm.model import LLM

__all__ = ["LLM", "Agent", "Crew", "Flow", "Process", "Task"]
