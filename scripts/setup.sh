#!/usr/bin/env bash
# Fill .venv with the exact packages of requirements.lock and this project on top. Needs Python 3.11 or newer, no more.
# Every package is checked against its digest in the lock, whichever tool installs it and wherever it comes from. (Not
# covered: the build tools of the few pure-Python packages that ship sources only, such as rouge-score.)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
  say "$*"
  exit 1
}

# The lock was resolved for 3.11, so that version comes first. A Python without venv or ensurepip (Debian splits them
# off) cannot make an environment and does not count.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3 python}; do
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# uv is one of the locked packages: its own lines of the lock are a complete, hash-pinned requirements file.
lock_lines_of_uv() { awk '/^uv==/ { inside = 1 } inside { print } inside && !/\\$/ { exit }' requirements.lock; }

# uv does not read pip's configuration; hand over what a site commonly sets there. What uv still cannot reach, pip can.
pip_setting() {
  .venv/bin/python -m pip config list 2>/dev/null | sed -n "s/^[^.]*\.$1='\(.*\)'\$/\1/p" | head -n 1
}

uv_settings() {
  local index cert
  index=$(pip_setting index-url)
  cert=$(pip_setting cert)
  if [ -n "$index" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
  if [ -n "$cert" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"; fi
  export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}"
}

has_uv() { .venv/bin/python -m uv --version >/dev/null 2>&1; }

get_uv() {
  has_uv && return
  lock_lines_of_uv >.venv/uv.lock
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock && has_uv
}

install_with_uv() {
  uv_settings
  local pip=(.venv/bin/python -m uv pip)
  "${pip[@]}" install --python .venv/bin/python --require-hashes -r requirements.lock &&
    "${pip[@]}" install --python .venv/bin/python --quiet --no-deps --no-build-isolation -e .
}

# The lock is complete, so nothing is left to resolve; and in hash mode pip trips over extras (`sqlalchemy[asyncio]`).
install_with_pip() {
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip --upgrade >/dev/null
  local install=(.venv/bin/python -m pip install --disable-pip-version-check --no-deps)
  "${install[@]}" --require-hashes -r requirements.lock &&
    "${install[@]}" --quiet --no-build-isolation -e .
}

if ! .venv/bin/python -c '' 2>/dev/null; then
  python=$(find_python) || die "no Python >= 3.11 with venv and ensurepip (tried: ${PYTHON:-python3.11 python3 python}).
       Install it (Debian, Ubuntu: python3.11 python3.11-venv; conda users: see environment.yml), or set PYTHON."
  say "$("$python" --version) at $python -> .venv"
  # Never clear: a folder that is not ours may hold something.
  "$python" -m venv .venv
fi

if get_uv; then
  install_with_uv || {
    say "uv could not install the packages; trying pip (minutes instead of seconds)"
    install_with_pip
  }
else
  say "uv is not to be had here; using pip (minutes instead of seconds)"
  install_with_pip
fi
say "done; 'source .venv/bin/activate' puts snakemake on your path"
