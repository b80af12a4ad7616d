# htr serve with the recognizers of the package, without PyTorch:
#   docker build -t htr-lightning .
#   docker run --rm -p 127.0.0.1:8000:8000 -e HTR_TOKEN=... htr-lightning
# Other recognizers: docker run ... -v ./models:/models:ro htr-lightning htr serve /models/model.onnx --host 0.0.0.0
# Corrections:       docker run ... -v htr:/home/htr htr-lightning htr serve --host 0.0.0.0 --corrections corrections.db
FROM python:3.13-slim AS build
WORKDIR /source
RUN python -m venv /opt/htr
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY experiments experiments
COPY htr_lightning htr_lightning
RUN /opt/htr/bin/pip install --no-cache-dir ".[serve,pages]"

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 htr
COPY --from=build /opt/htr /opt/htr
ENV PATH=/opt/htr/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/htr
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Prints a token unless HTR_TOKEN is set
CMD ["htr", "serve", "--host", "0.0.0.0"]
