#!/usr/bin/env bash
# Make or mend the virtual environment:  .ci/install.sh FOLDER [EXTRA]
# Idempotent: an install that finished for this pyproject.toml is left alone, one that did not is
# done anew. Talk goes to stderr.
set -euo pipefail

venv=$1
extra=${2:-}
say() { printf '%s\n' "$*" >&2; }
stop() { say "$*"; exit 1; }

mark="$venv/.made-by-make"                       # the folder is ours to delete
stamp="$venv/.installed${extra:+-$extra}"        # written last: its absence means unfinished
want=$(cksum < pyproject.toml)

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && "$venv/bin/python" -c '' 2>/dev/null; then
  exit 0
fi

# A finished environment whose requirements changed is brought up to date; a torn one is redone.
finished=$(ls "$venv"/.installed* 2>/dev/null | head -n 1 || true)
if [ -e "$venv" ] && [ ! -e "$mark" ]; then
  stop "'$venv' exists and was not made by make: move it away, or name another folder with VENV=FOLDER."
fi
if [ -e "$venv" ] && { [ -z "$finished" ] || [ -e "$venv/.installing" ] || ! "$venv/bin/python" -c '' 2>/dev/null; }; then
  say "An earlier installation in $venv did not finish; starting it anew."
  rm -rf "$venv"
fi

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
    if command -v "$candidate" >/dev/null 2>&1 &&
       "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      python=$candidate
      break
    fi
  done
fi
[ -n "$python" ] || stop "featcache needs Python 3.11 or newer and none was found on PATH; install one, or name it with PYTHON=/path/to/python3."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  stop "featcache needs Python 3.11 or newer, but PYTHON=$python is older or does not run."

if [ ! -e "$venv" ]; then
  parent=$(dirname "$venv")
  mkdir -p "$parent"
  free=$(df -Pk "$parent" | awk 'NR == 2 {print int($4 / 1048576)}')
  [ "$free" -ge 8 ] || stop "The installation needs 8 GB free in $parent and finds $free GB; free some, or name a roomier folder with VENV=FOLDER."
  say "Installing into $venv with $("$python" --version). PyTorch from the package index brings the"
  say "CUDA libraries along: almost 3 GB to download, about 6 GB on disk. One to ten minutes."
  mkdir -p "$venv"
  touch "$mark"
  if command -v uv >/dev/null 2>&1; then
    uv venv --quiet --allow-existing --python "$python" "$venv" >&2
  elif ! "$python" -m venv "$venv" >&2; then
    rm -rf "$venv"
    stop "'$python -m venv' failed: on Debian and Ubuntu install the package python3-venv, or install uv."
  fi
fi

touch "$venv/.installing"
target=".${extra:+[$extra]}"
if command -v uv >/dev/null 2>&1; then
  uv pip install --quiet --python "$venv/bin/python" -e "$target" >&2
else
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e "$target" >&2
fi
rm -f "$venv"/.installed* "$venv/.installing"
printf '%s\n' "$want" > "$venv/.installed"       # every extra includes the plain install
printf '%s\n' "$want" > "$stamp"
