# docker build -t googlenet .                         for CPUs
# docker build -t googlenet --build-arg EXTRA=cuda .  for NVIDIA GPUs
# docker run -v "$PWD/runs:/work/runs" googlenet --config=fmnist96
# (GPUs: add --gpus all; a streamed data set: --shm-size=2g; a page on port
# 7860: docs/use.md)
FROM python:3.13-slim
ARG EXTRA=""
COPY . /src
RUN pip install --no-cache-dir "/src${EXTRA:+[$EXTRA]}" && rm -rf /src
WORKDIR /work
ENTRYPOINT ["googlenet"]
CMD ["--help"]
