"""Ask the app on this machine whether it answers; the exit status is 0 if it does.

python -m mobilediff.demo.health
"""

import os
from http.client import HTTPConnection


def main() -> None:
    """Ask the port of GRADIO_SERVER_PORT, straight, whatever proxy is set.

    Raises:
        OSError: nothing answers there.
        SystemExit: the answer is no page.
    """
    connection = HTTPConnection("127.0.0.1", int(os.environ.get("GRADIO_SERVER_PORT") or 7860), timeout=4)
    connection.request("GET", "/")
    status = connection.getresponse().status
    if status != 200:
        raise SystemExit(f"error: the app answers with status {status}")


if __name__ == "__main__":
    main()
