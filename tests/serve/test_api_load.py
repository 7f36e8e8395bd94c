"""Load of 32 streams for two minutes: no request fails and memory does not grow."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from tests.helpers.served import ENDLESS

STREAMS = 32
SECONDS = float(os.environ.get("GROUNDUP_LOAD_SECONDS", "120"))
WARM_UP = 0.25
# Between warm-up and end; a leak of each response would exceed this.
GROWTH_BYTES = 32 << 20


@pytest.mark.torture
def test_32_streams_for_two_minutes(served: Path, tmp_path: Path) -> None:
    asyncio.run(_load(served, tmp_path / "log"))
    # Clients that disconnect do not fill the log.
    assert (tmp_path / "log").read_text() == ""


async def _load(served: Path, log: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "groundup",
        "serve",
        str(served),
        "--port",
        "0",
        "--slots",
        "16",
        "--queue",
        "32",
    ]
    server = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=log.open("wb")
    )
    try:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().rpartition(" ")[2].strip()
        process, began = psutil.Process(server.pid), time.monotonic()
        memory: list[tuple[float, int]] = []
        async with openai.AsyncOpenAI(
            base_url=url + "v1", api_key="none", max_retries=0, timeout=120
        ) as client:
            counts = await asyncio.gather(
                _watch(process, began, memory),
                *(_client(client, number, began) for number in range(STREAMS)),
            )
        warm = max(size for second, size in memory if second < SECONDS * WARM_UP)
        end = max(size for second, size in memory if second > SECONDS * 0.9)
        print(
            f"{sum(counts[1:])} answers; resident {warm / 1e6:.0f} MB after warm-up,"
            f" {end / 1e6:.0f} MB at the end"
        )
        assert end - warm < GROWTH_BYTES
        assert process.num_fds() < 64
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 60) == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


async def _client(client: openai.AsyncOpenAI, number: int, began: float) -> int:
    """Send requests with varying prompts and lengths; every eighth client disconnects midway."""
    done = 0
    while time.monotonic() - began < SECONDS:
        params: dict[str, Any] = {
            "model": "tiny",
            "prompt": "the cat " * (1 + (number + done) % 50),
            "max_tokens": 20 + (number * 7 + done) % 100,
        }
        stream = await client.completions.create(
            **params,
            stream=True,
            logit_bias=ENDLESS,
            stream_options={"include_usage": True},
            logprobs=done % 3 or None,
        )
        usage = None
        async for event in stream:
            usage = event.usage or usage
            if number % 8 == 7 and event.choices and event.choices[0].text:
                await stream.close()
                break
        else:
            assert usage is not None and usage.completion_tokens == params["max_tokens"]
        done += 1
    return done


async def _watch(process: psutil.Process, began: float, memory: list[tuple[float, int]]) -> int:
    while time.monotonic() - began < SECONDS:
        memory.append((time.monotonic() - began, process.memory_info().rss))
        await asyncio.sleep(0.5)
    return 0
