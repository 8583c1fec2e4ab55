# Everything that the demo and the tests need:
#     docker build -t edgemoe . && docker run --rm edgemoe make demo && docker run --rm edgemoe make test
# Debian 12 has Python 3.11, the oldest that the tools run on.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ git make perl python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /edgemoe
COPY . .
RUN make -j 2 setup
ENV PATH="/edgemoe/.venv/bin:$PATH"
CMD ["make", "demo"]
