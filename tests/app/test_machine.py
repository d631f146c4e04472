"""The app as a process on machines that are not the developer's: proxies, no home, other users, containers."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from gradio_client import Client

from mobilediff.demo import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
# Another user with the right to read all files, as the interpreter may be of the user who runs the tests.
OTHER_USER = ("setpriv", "--reuid=4711", "--regid=0", "--clear-groups", "--bounding-set=-all,+dac_read_search")
OTHER_USER = (*OTHER_USER, "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
as_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can start a process of another user"
)
# Writes each address that the process tries to connect to, and refuses those that are not of this machine.
COUNT_CONNECTIONS = """
import os, socket
connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
def tell(host):
    if host not in ("127.0.0.1", "::1", "localhost", None):
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(f"{host}\\n")
        raise OSError(f"no connection to {host} here")
def counted(call):
    def counting(self, address):
        if isinstance(address, tuple):
            tell(address[0])
        return call(self, address)
    return counting
socket.socket.connect, socket.socket.connect_ex = counted(connect), counted(connect_ex)
socket.getaddrinfo = lambda host, *args, **kwargs: (tell(host), lookup(host, *args, **kwargs))[1]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def checkpoints(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("machine") / "checkpoints"
    shutil.copytree(checkpoints / "student-1step", folder / "student-1step")
    return folder


def environment_of(checkpoints, **variables) -> dict:
    """A process's environment with nothing of the tests' own but the path."""
    given = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    given |= {"MOBILEDIFF_CHECKPOINTS": str(checkpoints), "MOBILEDIFF_EXAMPLES": "/nowhere/examples"}
    return {name: str(value) for name, value in (given | variables).items() if value is not None}


@contextmanager
def served(env: dict, cwd=ROOT, user=(), stop=signal.SIGINT):
    """Start the app, as another user where one is given, and yield its port and its log once it answers."""
    port = free_port()
    with tempfile.NamedTemporaryFile("r", suffix=".log") as log:
        env |= {"GRADIO_SERVER_PORT": str(port)}
        with open(log.name, "w") as output:
            process = subprocess.Popen(
                [*user, sys.executable, str(ROOT / "app.py")], cwd=cwd, env=env, stdout=output, stderr=output
            )
        try:
            for _ in range(600):
                assert process.poll() is None, log.read()
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield port, log
        finally:
            process.send_signal(stop)
            process.wait(30)


def draw(port: int, path: str = "/") -> str:
    records, _ = Client(f"http://127.0.0.1:{port}{path}", verbose=False).predict(
        "a fire truck", 0, 1, ["student-1step"], api_name="/compare"
    )
    return records[0]["status"]


def test_behind_a_proxy_without_a_home_with_gradios_folder_taken_and_offline(checkpoints, tmp_path):
    """Four of a user's machines in one process, as each start takes seconds."""
    (tmp_path / "gradio").touch()  # where gradio would make its temporary folder
    (tmp_path / "sitecustomize.py").write_text(COUNT_CONNECTIONS)
    (tmp_path / "work").mkdir()
    proxy = "http://127.0.0.1:9"  # nothing answers there
    env = environment_of(
        checkpoints, TMPDIR=tmp_path, HOME="/proc/no-home", http_proxy=proxy, HTTPS_PROXY=proxy,
        PYTHONPATH=tmp_path, CONNECTIONS=tmp_path / "connections",
    )  # fmt: skip
    with served(env, cwd=tmp_path / "work", stop=signal.SIGTERM) as (port, log):
        assert draw(port) == "done"
        text = log.read()
        assert "Traceback" not in text
    assert not (tmp_path / "connections").exists(), (tmp_path / "connections").read_text()
    assert list((tmp_path / "work").iterdir()) == []
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("mobilediff-")]


class PathProxy(BaseHTTPRequestHandler):
    """Show the app below /tiny/ and nothing elsewhere, as a web server with other pages does."""

    app_port: int

    def forward(self) -> None:
        if not self.path.startswith("/tiny/"):
            return self.send_error(404)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        headers["x-forwarded-host"] = self.headers["host"]
        url = f"http://127.0.0.1:{self.app_port}{self.path.removeprefix('/tiny')}"
        with (
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream(self.command, url, headers=headers, content=body) as answer,
        ):
            self.send_response(answer.status_code)
            for name in ("content-type", "content-encoding"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            for chunk in answer.iter_raw():
                self.wfile.write(chunk)
                self.wfile.flush()

    do_GET = do_POST = forward  # noqa: N815 - the names of http.server

    def log_message(self, *args) -> None:
        """Say nothing."""


def test_behind_a_path_of_a_web_server(checkpoints):
    """Every file that the page names is there below the path, and a program draws through it."""
    with served(environment_of(checkpoints, GRADIO_ROOT_PATH="/tiny")) as (port, log):
        handler = type("Handler", (PathProxy,), {"app_port": port})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            root = f"http://127.0.0.1:{proxy.server_port}/tiny"
            page = httpx.get(f"{root}/", trust_env=False).text
            assert f'"root":"{root}"' in page  # where its scripts send their calls
            named = {urljoin(f"{root}/", link) for link in re.findall(r'(?:src|href)="([^"]+)"', page)}
            named.remove(f"http://127.0.0.1:{proxy.server_port}/manifest.json")  # gradio's, to install the page
            assert len(named) > 2
            for url in named:
                assert url.startswith(f"{root}/"), url
                assert httpx.get(url, trust_env=False).status_code == 200, url
            assert draw(proxy.server_port, "/tiny/") == "done"
            proxy.shutdown()
        assert "Traceback" not in log.read()


@as_another_user
def test_for_a_user_whose_home_and_caches_cannot_be_written(checkpoints, tmp_path):
    with tempfile.TemporaryDirectory() as scratch:
        home, models = Path(scratch, "home"), Path(scratch, "checkpoints")
        (home / ".cache" / "huggingface").mkdir(parents=True)
        shutil.copytree(checkpoints, models)
        for path in (*home.rglob("*"), home, Path(scratch)):
            path.chmod(0o555)
        with served(environment_of(models, HOME=home), user=OTHER_USER) as (port, log):
            assert draw(port) == "done"
            assert "Traceback" not in log.read()
        assert [path.name for path in home.rglob("*")] == [".cache", "huggingface"]


def test_the_health_check_asks_the_port_of_the_environment(checkpoints):
    (check,) = re.findall(r'^HEALTHCHECK .* CMD \["python", "-m", "(.*)"\]$', DOCKERFILE, re.M)

    def status(port: int) -> int:
        env = environment_of(checkpoints, GRADIO_SERVER_PORT=port, http_proxy="http://127.0.0.1:9")
        return subprocess.run([sys.executable, "-m", check], cwd=ROOT, env=env, stderr=subprocess.DEVNULL).returncode

    with served(environment_of(checkpoints)) as (port, _):
        assert status(port) == 0
    assert status(port) != 0


@as_another_user
def test_the_image_works_for_any_user_of_group_zero(checkpoints):
    """The layout that the Dockerfile makes, in a folder; the process is a user without a home and a name."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        home = Path(scratch, "home")
        home.mkdir()
        os.chown(home, 1000, 0)
        work = home / "mobilediff"
        work.mkdir()  # WORKDIR makes it root's
        for name in ("app.py", "eval", "mobilediff", "examples"):
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, work / name)
        shutil.copytree(checkpoints, work / "checkpoints")
        for path in work.rglob("*"):
            os.chown(path, 1000, 0)
        commands = re.findall(r"^RUN (?:useradd .* && )?(ch(?:mod|own) .*)$", DOCKERFILE, re.M)
        assert len(commands) == 2
        for command in commands:
            subprocess.run(command.replace("/home/user", str(home)), shell=True, cwd=work, check=True)
        env = environment_of(None, MOBILEDIFF_CHECKPOINTS=None, MOBILEDIFF_EXAMPLES=None, HOME=home)

        def run(*arguments: str) -> None:
            done = subprocess.run(
                [*OTHER_USER, sys.executable, *arguments], cwd=work, env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr

        run("app.py", "--precompute")
        assert {path.name for path in (work / "examples" / "a-tabby").iterdir()} != {
            path.name for path in (ROOT / "examples" / "a-tabby").iterdir()
        }
        run("-m", "eval.generate", "--model", "checkpoints/student-1step", "--n", "10", "--output", "outputs/samples")
        assert (work / "outputs").stat().st_uid == 4711


@pytest.mark.parametrize("variable", ["MOBILEDIFF_CHECKPOINTS", "MOBILEDIFF_EXAMPLES"])
def test_folders_of_the_environment(monkeypatch, tmp_path, variable):
    default = variable.partition("_")[2].lower()
    monkeypatch.delenv(variable, raising=False)
    assert environment.path_of(variable, default) == ROOT / default
    monkeypatch.setenv(variable, "")
    assert environment.path_of(variable, default) == ROOT / default
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/meine Bilder/")
    assert environment.path_of(variable, default) == tmp_path / "meine Bilder"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, ".")
    assert environment.path_of(variable, default).name == tmp_path.name
    monkeypatch.setenv(variable, "~nobody-of-this-name/x")
    with pytest.raises(ValueError, match=f"{variable} is ~nobody-of-this-name/x; there is no such home"):
        environment.path_of(variable, default)


PREPARED = """
import json, os, sys
from mobilediff.demo.environment import prepare
prepare()
assert not {"gradio", "torch"} & set(sys.modules)
print(json.dumps({**os.environ, "made": os.path.isdir(os.environ["GRADIO_TEMP_DIR"])}))
"""


def prepared(**variables) -> dict:
    env = environment_of("/nowhere", **variables)
    return json.loads(
        subprocess.run([sys.executable, "-c", PREPARED], cwd=ROOT, env=env, stdout=-1, check=True).stdout
    )


def test_what_is_set_before_gradio_and_torch_are_imported():
    env = prepared()
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert env["no_proxy"] == env["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert env["made"] and not Path(env["GRADIO_TEMP_DIR"]).exists()  # removed at the end


def test_what_the_environment_says_stays(tmp_path):
    own = {"OMP_WAIT_POLICY": "ACTIVE", "GRADIO_TEMP_DIR": str(tmp_path), "http_proxy": "http://proxy:3128"}
    env = prepared(**own, NO_PROXY="example.org")
    assert {name: env[name] for name in own} == own
    assert env["no_proxy"] == env["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1"
    assert tmp_path.exists()


def test_empty_variables_of_gradio_are_unset_and_a_home_is_found(tmp_path):
    env = prepared(GRADIO_TEMP_DIR="", GRADIO_SERVER_PORT="", GRADIO_ROOT_PATH="", TMPDIR=tmp_path)
    assert not {"GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"} & set(env)
    assert Path(env["GRADIO_TEMP_DIR"]).parent == tmp_path
    (tmp_path / "served").mkdir()
    assert prepared(GRADIO_TEMP_DIR="~/served", HOME=tmp_path)["GRADIO_TEMP_DIR"] == str(tmp_path / "served")
