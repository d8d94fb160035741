"""``Agent(multimodal=True)``: a tool by which the model asks to see an image; it comes in a message of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from rxflow.llm._request import Message
from rxflow.tools import BaseTool

_ADDRESSES = ("https://", "http://", "data:image/")
_QUESTION = "Here is the image."


class _Asked(BaseModel):
    image_url: str = Field(description="The http(s) address of the image, or a data URL")
    action: str | None = Field(default=None, description="What to look for in the image, or a question about it")


class ImageTool(BaseTool):
    """Shows the model an image. A file's path is refused: the model could read any file of this machine."""

    name: str = "add_image_to_content"
    description: str = "See an image, to describe it or to answer questions about it. It is shown in the next message."
    args_schema: type[BaseModel] = _Asked
    is_idempotent: bool = True

    def _run(self, image_url: str, action: str | None = None) -> dict[str, str]:
        if not image_url.startswith(_ADDRESSES):
            raise ValueError(f"image_url is an address, https://… for instance, or a data URL; got {image_url[:200]!r}")
        return {"image_url": image_url, "action": action or _QUESTION}

    def format_output_for_agent(self, raw_result: Any) -> str:
        return "The image is in the next message."

    def message_with(self, result: Mapping[str, str]) -> Message:
        """The image, as a user shows it: answers of tools hold text alone."""
        return {
            "role": "user",
            "content": [
                {"type": "text", "text": result["action"]},
                {"type": "image_url", "image_url": {"url": result["image_url"]}},
            ],
        }
