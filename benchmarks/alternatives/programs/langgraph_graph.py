"""LangGraph: a graph of one node that asks the model, streamed by messages."""

from common import PROMPT, drive
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph


async def read(url: str) -> int:
    model = ChatOpenAI(model="gpt-4o", base_url=url, api_key="none", streaming=True)

    async def ask(state: MessagesState) -> dict:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    graph = builder.compile()
    messages = {"messages": [{"role": "user", "content": PROMPT}]}
    return sum([len(message.content) async for message, _ in graph.astream(messages, stream_mode="messages")])


drive(read)
