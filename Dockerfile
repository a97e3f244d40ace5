# The program with kernels for every x86-64 processor; models stay outside. Not built by the authors yet.
#
#   docker build -t aisp-llama .
#   docker run --rm -v ~/models:/models aisp-llama run -m /models/base.gguf --reward judge:self -p "…"
FROM rust:1.89-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake libclang-dev
COPY . /src
WORKDIR /src
RUN scripts/dist.sh /dist dynamic

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 libstdc++6 ca-certificates \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home align
COPY --from=build /dist/aisp-llama-*-dynamic/ /usr/local/
USER align
WORKDIR /home/align
ENTRYPOINT ["aisp-llama"]
