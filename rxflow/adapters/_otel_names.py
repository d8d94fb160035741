"""The names that :mod:`rxflow.adapters.otel` writes: those of OpenTelemetry's conventions, and rxflow's own.

The conventions for generative AI still change, so all names are in this one module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NAMES: Final[Mapping[str, str]] = {
    # Names from the semantic conventions 1.41 (package opentelemetry-semantic-conventions 0.66b2).
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "workflow": "gen_ai.workflow.name",
    "agent": "gen_ai.agent.name",
    "agent_id": "gen_ai.agent.id",
    "tool": "gen_ai.tool.name",
    "tool_type": "gen_ai.tool.type",
    "tool_id": "gen_ai.tool.call.id",
    "tool_arguments": "gen_ai.tool.call.arguments",
    "tool_result": "gen_ai.tool.call.result",
    "tools": "gen_ai.tool.definitions",
    "model": "gen_ai.request.model",
    "is_stream": "gen_ai.request.stream",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
    "response_id": "gen_ai.response.id",
    "response_model": "gen_ai.response.model",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "time_to_first_chunk": "gen_ai.response.time_to_first_chunk",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_prompt_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "input_messages": "gen_ai.input.messages",
    "output_messages": "gen_ai.output.messages",
    "token_type": "gen_ai.token.type",
    "error": "error.type",
    "server_address": "server.address",
    "server_port": "server.port",
    "metric_duration": "gen_ai.client.operation.duration",
    "metric_tokens": "gen_ai.client.token.usage",
    "metric_first_chunk": "gen_ai.client.operation.time_to_first_chunk",
    # rxflow's own names, for data that the conventions do not cover.
    "run_id": "rxflow.run.id",
    "flow_id": "rxflow.flow.id",
    "method": "rxflow.method.name",
    "method_kind": "rxflow.method.kind",
    "method_label": "rxflow.method.label",
    "task": "rxflow.task.name",
    "attempt": "rxflow.attempt",
    "cost": "rxflow.usage.cost",
    "is_estimated": "rxflow.usage.is_estimated",
    "tool_stage": "rxflow.tool.failed_at",
    "cancel_reason": "rxflow.cancel.reason",
    "retracted": "rxflow.retracted",
    "retrying": "rxflow.retrying",
    "input_requested": "rxflow.input_requested",
    "input_kind": "rxflow.input.kind",
    "paused": "rxflow.paused",
}
"""Maps the keys in the adapter's code to the names in its output: names of attributes, metrics and span events."""

PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""Maps rxflow's name of a provider to the name in the conventions, if the two names differ."""

DURATION_BOUNDARIES_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDARIES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
