FROM python:3.11-slim

RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/mobilediff

# The CPU wheels come first, bounded by the same file: the second install then finds torch there and brings no CUDA.
COPY requirements.txt .
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c requirements.txt torch torchvision \
    && pip install --no-cache-dir -r requirements.txt

COPY --chown=user . .
USER user
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/')"]
CMD ["python", "app.py"]
