# How does a container get PostgreSQL with talkmeter?
#
#   make deb && docker build -t postgres-talkmeter:15 .       (another major: PG_CONFIG=..., --build-arg MAJOR=17)
#
# Not built by this project's tests, which have neither Docker nor an image registry. The package in it they install and run.
ARG MAJOR=15
FROM postgres:${MAJOR}-bookworm
ARG MAJOR
COPY target/packages/postgresql-${MAJOR}-talkmeter_*.deb /tmp/
RUN apt-get install -y --no-install-recommends /tmp/postgresql-${MAJOR}-talkmeter_*.deb && rm /tmp/*.deb
