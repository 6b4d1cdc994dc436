#!/bin/bash
# Installs the real servers and clients that the tests run against, from Debian.
#   tools/test-servers.sh                what `npm test` uses
#   tools/test-servers.sh acceptance     and what `npm run acceptance` uses
#   tools/test-servers.sh bench          and what `npm run bench` uses
# Installs only what is missing, starts no daemon, and may be repeated at will. Without
# root it names what is missing and leaves it at that: the tests in question are skipped.
set -euo pipefail

packages=(
  keystone                                               # identity
  glance-common                                          # upstream's schema and its tools
  rabbitmq-server python3-oslo.messaging                 # notifications
  postgresql mariadb-server mariadb-client               # databases
  galera-4 rsync libfaketime                             # clusters of databases, clocks that are wrong
  qemu-utils                                             # images of every format
  barbican-api python3-barbican openssl                  # certificates and keys
  memcached python3-memcache python3-keystonemiddleware  # what is known about tokens
  lhasa                                                  # LHA archives
  nginx-light                                            # a web server to download from
)
for group in "$@"; do
  case $group in
    acceptance) packages+=(uwsgi-core uwsgi-plugin-python3 sqlite3 grub-rescue-pc curl libnss-wrapper
      python3-openstackclient python3-glanceclient tempest glance-tempest-plugin python3-stestr python3-subunit
      python3-venv python3-pbr python3-setuptools python3-wheel python3-yaml) ;;
    bench) packages+=(glance-api python3-glance sqlite3 curl nginx-light wrk openssl) ;;
    *) echo "usage: tools/test-servers.sh [acceptance] [bench]" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "test-servers: not a Debian system; these packages are wanted: ${packages[*]}"
  exit 0
fi
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^installed //p' || true)
mapfile -t missing < <(printf '%s\n' "${packages[@]}" | grep -vxF "$installed" || true)
if [ "${#missing[@]}" = 0 ]; then
  echo "test-servers: all ${#packages[@]} packages are there"
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "test-servers: missing, and only root can install them: ${missing[*]}"
  exit 0
fi

policy=/usr/sbin/policy-rc.d          # while this runs, no package starts a daemon
log=$(mktemp)
cleanup=(rm -f "$log")
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  cleanup+=("$policy")
fi
trap '"${cleanup[@]}"' EXIT
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
apt_get() {
  apt-get -o DPkg::Lock::Timeout=900 -o Dpkg::Options::=--force-confold "$@" </dev/null >>"$log" 2>&1
}
echo "test-servers: installing ${missing[*]}"
command -v debconf-set-selections >/dev/null || apt_get install -y debconf
# The packages' own database and endpoint set-up would want a running server.
for question in {keystone,barbican}/{configure_db,dbconfig-install,create-admin-tenant,register-endpoint} \
  glance/{configure_db,dbconfig-install,register-endpoint,configure_api-endpoint}; do
  for package in keystone glance-common glance-api barbican-common barbican-api; do echo "$package $question boolean false"; done
done | debconf-set-selections
apt_get install -y --no-install-recommends "${missing[@]}" || {
  apt_get update
  apt_get install -y --no-install-recommends "${missing[@]}"
} || {
  tail -n 20 "$log" >&2
  echo "test-servers: apt-get failed" >&2
  exit 1
}
echo "test-servers: done"
