"""Measure how the app serves: many visitors at once, one beside an evaluation, strokes, damage, memory, its start.

python -m mobilediff.demo.benchmark                    all of it, against an app that it starts and stops
python -m mobilediff.demo.benchmark --only memory
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
from gradio_client import Client
from PIL import Image, ImageDraw

from mobilediff.command import command_parser, run_command
from mobilediff.demo.environment import ROOT
from mobilediff.demo.service.drawing import png_uri
from mobilediff.demo.service.models import FAMILY
from mobilediff.demo.service.sketches import COLORS, SIZE

ONE_STEP = [name for name in FAMILY if "1step" in name]
VISITORS, COMPARISONS = 50, 3
PROMPTS = ("a fire truck", "a tabby", "a stealth bomber", "a bullfrog", "a red deer", "a container ship")
CALLS, SETTLED = 2000, 100  # calls in a row, and those after which memory is taken as the app's own
EVALUATED = 2000  # samples
BLURS = (0.5, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)  # pixels
STROKES = 60  # of a sketch, and its prompt
SKETCHED = "a horse"
START_LIMIT = 120.0  # seconds


@dataclass(frozen=True)
class Server:
    """Hold a running app: its process, its address, and seconds from its start to its first answer."""

    process: psutil.Process
    url: str
    seconds_to_page: float

    def client(self) -> Client:
        """Return a visitor of its own."""
        return Client(self.url, verbose=False)

    def memory_mb(self) -> float:
        """Return the memory of the process in MB of 10^6 bytes."""
        return self.process.memory_info().rss / 1e6


@contextmanager
def served() -> Iterator[Server]:
    """Start the app on a free port, wait for its page, and stop it in the end.

    Raises:
        SystemExit: it ends, or does not answer in `START_LIMIT` seconds.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port)}
    start = time.perf_counter()
    app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/"
    try:
        while time.perf_counter() - start < START_LIMIT and app.poll() is None:
            try:
                httpx.get(url, trust_env=False, timeout=5).raise_for_status()
                yield Server(psutil.Process(app.pid), url, time.perf_counter() - start)
                return
            except httpx.HTTPError:
                time.sleep(0.02)
        raise SystemExit(f"error: the app does not answer at {url}")
    finally:
        app.terminate()
        app.wait()


def ask(client: Client, prompt: str, seed: int, chosen: list[str]) -> list[list[str]]:
    """Compare one image of some models: the pictures of each, as data URIs."""
    records, _ = client.predict(prompt, seed, 1, chosen, api_name="/compare")
    return [record["images"] for record in records]


def measure_start(server: Server) -> dict:
    """Measure seconds from the start of the process to its page, to a picture, and to all models loaded."""
    started = server.process.create_time()
    client = server.client()
    ask(client, PROMPTS[0], 0, ONE_STEP[:1])
    first_picture = time.time() - started
    ask(client, PROMPTS[0], 0, list(FAMILY))
    return {
        "page_s": server.seconds_to_page,
        "first_picture_s": first_picture,
        "picture_of_every_model_s": time.time() - started,
    }


def measure_visitors(server: Server) -> dict:
    """Let many visitors compare the one-step models at once, and ask each question again on its own."""
    clients = [server.client() for _ in range(VISITORS)]
    questions = [(PROMPTS[index % len(PROMPTS)], index) for index in range(VISITORS * COMPARISONS)]
    seconds, waited = [], []

    def visit(visitor: int) -> list[tuple[int, list[list[str]] | str]]:
        answers = []
        for index in range(visitor * COMPARISONS, (visitor + 1) * COMPARISONS):
            start = time.perf_counter()
            try:
                prompt, seed = questions[index]
                job = clients[visitor].submit(prompt, seed, 1, ONE_STEP, api_name="/compare")
                while not job.done():
                    if (rank := job.status().rank) is not None:
                        waited.append(rank)
                    time.sleep(0.2)
                answers.append((index, [record["images"] for record in job.result()[0]]))
                seconds.append(time.perf_counter() - start)
            except Exception as error:  # counted below
                answers.append((index, str(error)))
        return answers

    with ThreadPoolExecutor(VISITORS) as pool:
        answers = dict(answer for visits in pool.map(visit, range(VISITORS)) for answer in visits)
    own = sum(answers[index] == ask(clients[0], *question, ONE_STEP) for index, question in enumerate(questions))
    return {
        "visitors": VISITORS,
        "comparisons": len(questions),
        "answered": sum(not isinstance(answer, str) for answer in answers.values()),
        "with_their_own_pictures": own,
        "problems": sorted({answer for answer in answers.values() if isinstance(answer, str)}),
        "longest_queue_told": max(waited, default=None),
        **_times(seconds),
    }


def measure_beside_evaluation(server: Server) -> dict:
    """Time comparisons of the one-step models alone, and beside another visitor's evaluation."""
    client, other = server.client(), server.client()
    alone = _timed_comparisons(client, lambda: len(seconds_alone) < 10, seconds_alone := [])
    job = other.submit(["teacher"], ["frechet_distance"], EVALUATED, 0, api_name="/evaluate")
    seconds: list[float] = []
    until = time.monotonic() + 60
    beside = _timed_comparisons(client, lambda: time.monotonic() < until and not job.done(), seconds)
    job.cancel()
    return {"samples": EVALUATED, "alone": alone, "beside": beside}


def _timed_comparisons(client: Client, go_on: Callable[[], bool], seconds: list[float]) -> dict:
    shown: list[float] = []
    while go_on():
        start = time.perf_counter()
        records, _ = client.predict(PROMPTS[0], 0, 1, ONE_STEP, api_name="/compare")
        seconds.append(time.perf_counter() - start)
        shown.append(records[-1]["latency_ms"])
    return {**_times(seconds), "shown_latency_ms": statistics.median(shown)}


def measure_damage(server: Server) -> dict:
    """Time the redraws of damaged pictures, and the first one, for which they are drawn."""
    client, seconds = server.client(), []
    for blur in BLURS:
        start = time.perf_counter()
        client.predict(f"Samples of {FAMILY[0]}", blur, 0, 100, 0, api_name="/measure_damage")
        seconds.append(time.perf_counter() - start)
    return {"first_s": seconds[0], "redraws": _times(seconds[1:])}


def measure_strokes(server: Server) -> dict:
    """Time pictures of a sketch that grows by a line, each from a stroke until the page has the picture."""
    sketch, seconds, shown = Image.new("RGB", (SIZE, SIZE), "white"), [], []
    pen, calls = ImageDraw.Draw(sketch), server.client().config["dependencies"]
    (follow,) = [call["id"] for call in calls if call["api_name"] == "follow"]
    call = {"fn_index": follow, "session_hash": uuid.uuid4().hex}  # as gradio's page calls past the queue
    with httpx.Client(base_url=f"{server.url}gradio_api/", trust_env=False, timeout=60) as page:
        for stroke in range(STROKES + 1):
            start = time.perf_counter()
            data = [png_uri(sketch), SKETCHED, 0, 1.0, "none", 1.0]
            answer = page.post("run/predict", json=call | {"data": data}).raise_for_status()
            drawn, _ = answer.json()["data"]
            seconds.append(time.perf_counter() - start)
            shown.append(int(drawn["text"].split()[-2]))
            x, y = 8 + stroke % 4 * 4, 4 + stroke // 4
            pen.line([(x, y), (x + 3, y)], "black" if stroke % 2 else COLORS["green"])
    return {**_times(seconds[1:]), "shown_latency_ms": statistics.median(shown[1:])}  # without the load of the model


def measure_memory(server: Server) -> dict:
    """Compare one model again and again, and measure how much memory grows after the first calls."""
    client = server.client()
    for call in range(CALLS):
        if call == SETTLED:
            settled = server.memory_mb()
        ask(client, PROMPTS[call % len(PROMPTS)], call, ONE_STEP[:1])
    return {"calls": CALLS, f"mb_after_{SETTLED}": settled, "mb_after_all": server.memory_mb()}


def _times(seconds: list[float]) -> dict:
    deciles = statistics.quantiles(seconds, n=10)
    return {"n": len(seconds), "median_s": statistics.median(seconds), "p90_s": deciles[8], "longest_s": max(seconds)}


MEASURES = {
    "start": measure_start,
    "visitors": measure_visitors,
    "evaluation": measure_beside_evaluation,
    "strokes": measure_strokes,
    "damage": measure_damage,
    "memory": measure_memory,
}


def main(argv: list[str] | None = None) -> None:
    """Start the app, and print the measures as JSON."""
    parser = command_parser("python -m mobilediff.demo.benchmark", __doc__)
    parser.add_argument("--only", choices=MEASURES, nargs="+", default=list(MEASURES), help="measures, in this order")
    args = parser.parse_args(argv)
    with served() as server:
        print(json.dumps({name: MEASURES[name](server) for name in args.only}, indent=2))


if __name__ == "__main__":
    run_command(main)
