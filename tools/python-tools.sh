#!/bin/bash
# Installs the programs in Python that the acceptance run needs, from PyPI, each in a venv of its own:
#   tools/python-tools.sh glance            the newest Glance, the reference of the differential run
#   tools/python-tools.sh glance-registry   the last Glance with a registry, the reference of test/http/registry
#   tools/python-tools.sh schemathesis      which tries the service against its OpenAPI document
# Prints the folder of the venv. What is there already is left alone. PYTHON_TOOLS is where they go.
set -euo pipefail

home=${PYTHON_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/glimpse}
case ${1-} in
  glance) packages=(glance==33.0.0 gunicorn==23.0.0 psycopg2-binary==2.9.10 PyMySQL==1.1.1) ;;
  # Its own requirements have no upper bounds: these are the last versions that it works with.
  glance-registry) packages=(glance==20.2.0 'SQLAlchemy<1.4' 'oslo.db<9' 'alembic<1.8' 'WebOb<1.9' 'oslo.config<9' 'setuptools<66' testtools fixtures oslotest ddt) ;;
  schemathesis) packages=(schemathesis==4.32.5) ;;
  *) echo "usage: tools/python-tools.sh glance|glance-registry|schemathesis" >&2; exit 2 ;;
esac
venv=$home/${packages[0]/==/-}
mkdir -p "$home"
exec 9>"$venv.lock"
flock 9
# The mark is made last, and says what is there: a venv without it is half done, one with another gets what it lacks.
if [ "$(cat "$venv/complete" 2>/dev/null || true)" != "${packages[*]}" ]; then
  echo "python-tools: installing ${packages[*]} into $venv" >&2
  if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    # Debian's own Python: another one on the path may be too old, or lack venv.
    python=/usr/bin/python3
    [ -x "$python" ] || python=python3
    "$python" -m venv "$venv"
  fi
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2
  echo "${packages[*]}" >"$venv/complete"
fi
echo "$venv"
