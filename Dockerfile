FROM node:20-slim AS web
WORKDIR /build/web
COPY web/package.json web/package-lock.json ./
RUN npm ci
COPY web .
COPY docs/results.json /build/docs/results.json
RUN npm run build

FROM python:3.11-slim

# An orchestrator may start the container as any user of group 0, which writes where the user does.
RUN useradd --create-home --uid 1000 --gid 0 user && chmod g=u /home/user
WORKDIR /home/user/mobilediff

# The CPU wheels come first, bounded by the same file: the second install then finds torch there and brings no CUDA.
COPY requirements.txt .
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c requirements.txt torch torchvision \
    && pip install --no-cache-dir -r requirements.txt

COPY --chown=1000:0 . .
COPY --chown=1000:0 --from=web /build/web/dist web/dist
RUN chown 1000:0 . && find . -type d -exec chmod g=u {} +
USER 1000
ENV HOME=/home/user \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD ["python", "-m", "mobilediff.demo.health"]
CMD ["python", "app.py"]
