# Sourced by the scripts beside it: goes to the top of the repository and finds a Python that is
# new enough, as $python.
cd "$(dirname "$0")/.." || exit 3
for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do
  if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    break
  fi
done
if [ -z "$python" ]; then
  echo "Python 3.11 or newer is needed, and no python3 on PATH is" >&2
  exit 3
fi
