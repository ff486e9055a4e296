#!/bin/sh
# A Docker daemon without TLS, as docker:dind is with an empty DOCKER_TLS_CERTDIR.
set -e
# A pid file is left behind where the container was killed.
rm -f /var/run/docker.pid
# In a cgroup that holds processes none may be made that limits any (cgroup v2).
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p /sys/fs/cgroup/init
  xargs -rn1 < /sys/fs/cgroup/cgroup.procs > /sys/fs/cgroup/init/cgroup.procs || true
  sed -e 's/ / +/g' -e 's/^/+/' < /sys/fs/cgroup/cgroup.controllers \
    > /sys/fs/cgroup/cgroup.subtree_control || true
fi
exec tini-static -s -- dockerd --host=unix:///var/run/docker.sock --host=tcp://0.0.0.0:2375 --tls=false "$@"
