"""Pictures as the data URIs that the page sends."""

import base64

from PIL import Image

from mobilediff.demo.service.drawing import PNG_URI, png_uri


def as_uri(content: Image.Image | bytes) -> str:
    if isinstance(content, Image.Image):
        return png_uri(content)
    return PNG_URI + base64.b64encode(content).decode()


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.removeprefix(PNG_URI))
