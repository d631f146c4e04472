"""The tabs that measure pictures, as a visitor's program drives them: through gradio_client."""

import zipfile
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from mobilediff.demo import damage, pictures
from mobilediff.demo.environment import ROOT
from mobilediff.demo.page.blocks import CheckedBlocks
from mobilediff.demo.service import damaged
from mobilediff.demo.service.models import Models

pytestmark = pytest.mark.slow

EXAMPLES = sorted((ROOT / "examples" / "a-fire-truck").iterdir())
SOURCE = "Samples of student-1step-pruned"


@pytest.fixture(scope="module")
def client(checkpoints, tmp_path_factory):
    """A page of both tabs alone, on tiny models, with a temporary folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.delenv("MOBILEDIFF_DATA", raising=False)
        patch.setattr(damaged, "COUNT", 300)
        with CheckedBlocks(analytics_enabled=False) as demo:
            with gr.Tab("My pictures"):
                pictures.build_tab()
            with gr.Tab("Damage"):
                damage.build_tab(Models(checkpoints))
        _, url, _ = demo.queue(api_open=False).launch(
            prevent_thread_lock=True, quiet=True, show_error=True, ssr_mode=False
        )
        yield Client(url, verbose=False)
        demo.close()


@pytest.fixture
def archive(tmp_path) -> Path:
    file = tmp_path / "mine.zip"
    with zipfile.ZipFile(file, "w") as content:
        for example in EXAMPLES:
            content.write(example, f"truck/{example.name}")
        content.writestr("../<b>up.png", b"")
    return file


def test_a_zip_is_measured_and_what_is_left_out_is_named_and_escaped(client, archive):
    table, notes, sheet = client.predict([handle_file(archive)], api_name="/measure_pictures")
    rows = {name: values for name, *values in table["data"]}
    assert float(rows["Class accuracy"][0].rstrip("%")) > 50 and "Near copies" in rows
    assert "Left out: 1." in notes and "&#x27;../&lt;b&gt;up.png&#x27; has a name that leads" in notes
    assert "<b>" not in notes and "data:image/png;base64," in sheet


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "There is no file"),
        ([], "There is no file"),
        ("a", "The files are 'a'; accepted is a list of uploaded files"),
        ([None], "accepted is a list of uploaded files"),
        ([{"path": "/etc/passwd"}], "The file 'passwd' was not uploaded"),
        ([{"path": "https://example.org/a.png", "meta": {"_type": "gradio.FileData"}}], "is not fetched"),
    ],
)
def test_what_a_program_sends_instead_of_files_is_refused(client, files, message):
    with pytest.raises(AppError, match=message):
        client.predict(files, api_name="/measure_pictures")


def test_a_hostile_file_is_a_message_without_the_machines_paths(client, tmp_path):
    file = tmp_path / "array.npz"
    np.savez(file, images=np.array([{}], dtype=object))
    with pytest.raises(AppError) as raised:
        client.predict([handle_file(file)], api_name="/measure_pictures")
    assert "holds Python objects" in str(raised.value) and str(tmp_path.parent) not in str(raised.value)


def test_damage_is_measured(client):
    table, note, sheet = client.predict(SOURCE, 1, 0, 100, 0, api_name="/measure_damage")
    assert [row[0] for row in table["data"]][0] == "Fréchet distance to the training images"
    assert "Damaged, they lie" in note and sheet.count("data:image/png;base64,") == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((SOURCE, None, 0, 100, 0), "The blur is None"),
        ((SOURCE, 0, "x", 100, 0), "The noise is 'x'"),
        ((SOURCE, 0, 0, 1000, 0), "The JPEG quality is 1000"),
        (("<b>", 0, 0, 100, 0), "There are no pictures '<b>'"),
    ],
)
def test_bad_values_of_damage_are_messages(client, values, message):
    with pytest.raises(AppError, match=message):
        client.predict(*values, api_name="/measure_damage")


def test_functions_are_described(client):
    info = httpx.get(f"{client.src}gradio_api/info").json()["named_endpoints"]
    assert {"/measure_pictures", "/measure_damage", "/find_damage"} == set(info)
    assert all(endpoint["description"] for endpoint in info.values())
