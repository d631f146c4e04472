"""The app as a program meets it that speaks the Model Context Protocol."""

import asyncio
import json

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

import app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(models, tmp_path_factory):
    demo = app.build_app(models, [], [], tmp_path_factory.mktemp("dist"))
    url = app.launch(demo, prevent_thread_lock=True, quiet=True)
    yield f"{url}gradio_api/mcp/"
    demo.close()


async def in_session(address, ask):
    async with (
        streamable_http_client(address) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        return await ask(session)


def test_the_tools_say_what_they_do_and_take(address):
    tools = {tool.name: tool for tool in asyncio.run(in_session(address, lambda session: session.list_tools())).tools}
    assert set(tools["compare"].inputSchema["properties"]) >= {"prompt", "seed", "count", "chosen"}
    for name, tool in tools.items():
        assert tool.description, name
        for argument, schema in tool.inputSchema["properties"].items():
            assert schema.get("description"), f"{name}: {argument}"


def test_a_fire_truck_is_drawn(address):
    async def ask(session):
        arguments = {"prompt": "a fire truck", "seed": 7, "count": 1, "chosen": ["student-1step"]}
        return await session.call_tool("compare", arguments)

    answer = asyncio.run(in_session(address, ask))
    assert not answer.isError
    texts = " ".join(content.text for content in answer.content if content.type == "text")
    assert "data:image/png;base64," in texts and "student-1step" in texts


def test_bad_input_is_an_error_that_names_it(address):
    async def ask(session):
        return await session.call_tool("compare", {"prompt": "", "seed": 7, "count": 1, "chosen": ["student-1step"]})

    answer = asyncio.run(in_session(address, ask))
    assert answer.isError
    assert "The prompt is empty" in json.dumps([content.model_dump() for content in answer.content])
