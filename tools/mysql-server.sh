#!/bin/bash
# Unpacks MySQL, which Debian stable has not, from the packages of Debian unstable into a folder; installs nothing.
#   tools/mysql-server.sh FOLDER
# The tests run against it when MYSQL_ROOT names that folder (`npm run mysql`).
set -euo pipefail

root=$(realpath -m "${1:?usage: tools/mysql-server.sh FOLDER}")
if [ -e "$root/usr/sbin/mysqld" ]; then
  echo "mysql-server: $root has it"
  exit 0
fi
archive=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/$' | head -n 1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work"/debs
cat >"$work/unstable.sources" <<END
Types: deb
URIs: ${archive:?no Debian archive is known to apt-get}
Suites: sid
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
apt=(-q -o "Dir::Etc::sourcelist=$work/unstable.sources" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
echo "mysql-server: fetching MySQL and the libraries that it needs"
apt-get "${apt[@]}" update >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
mapfile -t packages < <(apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
  --no-replaces --no-enhances mysql-server-core | grep '^[a-z]' | sort -u)
(cd "$work/debs" && apt-get "${apt[@]}" download "${packages[@]}" >"$work/log" 2>&1) || { tail -n 5 "$work/log" >&2; exit 1; }
mkdir -p "$root"
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$root"; done
chmod -R a+rX "$root"
echo "mysql-server: $root has $(basename "$work"/debs/mysql-server-core_*.deb .deb)"
