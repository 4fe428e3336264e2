#!/bin/bash
# Builds the images that stand in for public ones where none can be pulled, and the product's own:
#
#	base ─┬─ jre ─┬─ kafka         ⇐ Maven
#	      │       └─ registry      ⇐ Maven
#	      ├─ prometheus            ⇐ apt
#	      ├─ clickhouse            ⇐ the embedded engine: npm, or this user's cache
#	      └─ go ── spillway        ⇐ this machine's Go and its module cache; deploy/Dockerfile
#
# usage: build.sh [NAME...]; without names all of them, and local.env is written, which names them to tests and compose.
#
# An image carries the hash of all it was made from; one whose hash is still right is left alone. Needs root, a Docker
# daemon, debootstrap, Maven, npm and Go. Works with Docker's old builder too.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$here"
suite=bookworm
registry_version=3.0.9
maven_dependency=org.apache.maven.plugins:maven-dependency-plugin
label=spillway.inputs
max_product_bytes=$((60 * 1000 * 1000))

say() { printf 'images: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }
tag() { echo "spillway/$1:local"; }

# hash FILE... prints names and hashes.
hash() { sha256sum "$@"; }

# inputs NAME prints a hash of everything the image is made from, its parents included.
inputs() {
  case $1 in
    base)       echo "$suite"; declare -f make_base ;;
    jre)        inputs base; hash jre/* ;;
    prometheus) inputs base; hash prometheus/* ;;
    kafka)      inputs jre; hash kafka/* ;;
    registry)   inputs jre; hash registry/*; echo "$registry_version" ;;
    clickhouse) inputs base; hash clickhouse/Dockerfile; engine_server ;;
    go)         inputs base; hash go/*; go version; product_modules ;;
    spillway)   inputs base; go version; product_files ;;
    *)          die "$1: there is no such image" ;;
  esac | sha256sum | cut -d' ' -f1
}

# engine_server builds the server of the clickhouse image and prints its hash: Go's cache makes that cheap, and a change
# elsewhere in the module builds no new image of 800 MB.
engine_server() {
  (cd "$root" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -o "$scratch/server" ./deploy/images/clickhouse) >&2
  sha256sum <"$scratch/server"
}

# product_files hashes what deploy/Dockerfile compiles: no test, nothing of integration/.
product_files() {
  local list="$scratch/product-files"
  (cd "$root" && go list -deps -tags noengine -f '{{if not .Standard}}{{with .Module}}{{if .Main}}{{range $.GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range $.EmbedFiles}}{{$.Dir}}/{{.}}
{{end}}{{end}}{{end}}{{end}}' .) | sed '/^$/d' >"$list"
  [[ -s $list ]] || die "spillway: go list names no file"
  (cd "$root" && sed "s|^$root/||" "$list" | xargs sha256sum go.mod go.sum deploy/Dockerfile .dockerignore)
}

# product_modules lists what the product is compiled with: a new test dependency builds no new image.
product_modules() {
  (cd "$root" && go list -deps -tags noengine -f '{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}' .) | sort -u | sed '/^$/d'
}

make_base() {
  command -v debootstrap >/dev/null || die "base: debootstrap is not installed"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$scratch/base"
  cat >"$scratch/base/etc/dpkg/dpkg.cfg.d/small" <<'END'
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
END
  echo 'APT::Install-Recommends "false";' >"$scratch/base/etc/apt/apt.conf.d/small"
  rm -rf "$scratch"/base/usr/share/{doc,man,locale}/* "$scratch"/base/var/lib/apt/lists/* "$scratch"/base/var/cache/apt/*
  tar -C "$scratch/base" --numeric-owner -c . | docker import --change "LABEL $label=$1" - "$(tag base)"
  rm -rf "$scratch/base"
}

make_jre()        { docker_build jre "$1" "$here/jre" --network host; }
make_prometheus() { docker_build prometheus "$1" "$here/prometheus" --network host; }

make_kafka() {
  cp -R "$here/kafka" "$scratch/kafka"
  mvn -B -ntp -q -f "$here/kafka/pom.xml" "$maven_dependency:3.8.1:copy-dependencies" -DincludeScope=runtime \
    -DoutputDirectory="$scratch/kafka/libs"
  docker_build kafka "$1" "$scratch/kafka" --network none
}

# The plugin is an old one on purpose: later ones want the parent of the artifact's POM, which is not published.
make_registry() {
  cp -R "$here/registry" "$scratch/registry"
  mvn -B -ntp -q "$maven_dependency:2.8:copy" -Dartifact="io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all" \
    -DoutputDirectory="$scratch/registry"
  mkdir "$scratch/registry/app"
  tar -C "$scratch/registry/app" -xzf "$scratch"/registry/*.tar.gz
  rm "$scratch"/registry/*.tar.gz
  mv "$scratch"/registry/app/*-runner.jar "$scratch/registry/app/registry.jar"
  docker_build registry "$1" "$scratch/registry" --network none
}

make_clickhouse() {
  local lib
  lib=$("$scratch/server" fetch)
  mkdir "$scratch/clickhouse"
  cp "$here/clickhouse/Dockerfile" "$scratch/server" "$scratch/clickhouse/"
  ln "$lib" "$scratch/clickhouse/libchdb.so" 2>/dev/null || cp "$lib" "$scratch/clickhouse/libchdb.so"
  docker_build clickhouse "$1" "$scratch/clickhouse" --network none
}

# make_go takes the modules from this machine's cache, and from Go's proxy what is not there yet.
make_go() {
  local proxies
  proxies="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)"
  mkdir -p "$scratch/go/module"
  cp "$here/go/Dockerfile" "$scratch/go/"
  cp "$root/go.mod" "$root/go.sum" "$scratch/go/module/"
  cp -R "$(go env GOROOT)" "$scratch/go/goroot"
  rm -rf "$scratch/go/goroot/test" "$scratch/go/goroot/api" "$scratch/go/goroot/doc"
  product_modules >"$scratch/modules.txt"
  (cd "$scratch/go/module" && GOMODCACHE="$scratch/modules" GOFLAGS=-modcacherw GOPROXY=$proxies xargs go mod download <"$scratch/modules.txt")
  mv "$scratch/modules/cache/download" "$scratch/go/proxy"
  (cd "$root" && go list -deps -tags noengine -f '{{if not .Standard}}{{with .Module}}{{if not .Main}}{{$.ImportPath}}{{end}}{{end}}{{end}}' .) |
    sed '/^$/d' >"$scratch/go/module/packages"
  docker_build go "$1" "$scratch/go" --network none
}

make_spillway() {
  local version
  version=$(git -C "$root" describe --tags --always --dirty 2>/dev/null || echo dev)
  docker_build spillway "$1" "$root" --network none --file "$root/deploy/Dockerfile" --build-arg GO_IMAGE="$(tag go)" --build-arg VERSION="$version"
}

# docker_build NAME HASH CONTEXT OPTION...
docker_build() {
  local name=$1 sum=$2 context=$3
  shift 3
  docker build --label "$label=$sum" --tag "$(tag "$name")" "$@" "$context"
}

# sweep removes what earlier builds of this script left without a name. Docker keeps what a container uses.
sweep() {
  local mark
  for mark in "$label" spillway.stage=build; do
    docker images --quiet --filter dangling=true --filter "label=$mark" | sort -u | xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
  done
}

have() { [[ $(docker image inspect -f "{{index .Config.Labels \"$label\"}}" "$(tag "$1")" 2>/dev/null) == "$2" ]]; }

size() { docker image inspect -f '{{.Size}}' "$(tag "$1")" | awk '{printf "%.1f MB", $1 / 1e6}'; }

# parent NAME is the image that the image is made from.
parent() {
  case $1 in
    jre | prometheus | clickhouse | go) echo base ;;
    kafka | registry) echo jre ;;
    spillway) echo go ;;
  esac
}

# small_enough looks again at each run: an image that is too big is no better for being there.
small_enough() {
  local bytes
  bytes=$(docker image inspect -f '{{.Size}}' "$(tag spillway)")
  ((bytes < max_product_bytes)) || die "$(tag spillway) has $bytes bytes, more than $max_product_bytes"
}

# build NAME makes the image and its parents unless they are there, with the output in a log that is shown when it fails.
declare -A seen
build() {
  local name=$1 from sum log="$scratch/$1.log" began
  [[ -z ${seen[$name]:-} ]] || return 0
  seen[$name]=1
  from=$(parent "$name")
  [[ -z $from ]] || build "$from"
  began=$SECONDS
  sum=$(inputs "$name")
  if have "$name" "$sum"; then
    say "$(tag "$name") is there ($(size "$name"))"
    return
  fi
  say "$(tag "$name"): building"
  set +e # not || or if: the shell would go on after an error inside
  (set -e; "make_$name" "$sum") >"$log" 2>&1
  local failed=$?
  set -e
  if ((failed)); then
    tail -n 60 "$log" >&2
    die "$(tag "$name"): failed, see above"
  fi
  say "$(tag "$name"): built in $((SECONDS - began)) s ($(size "$name"))"
}

write_env() {
  local part
  for part in kafka registry clickhouse prometheus; do
    echo "SPILLWAY_IMAGE_${part^^}=$(tag $part)"
  done
  echo "SPILLWAY_IMAGE=$(tag spillway)"
}

docker info >/dev/null 2>&1 || die "no Docker daemon answers: start one, or run .ci/run, which does"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
exec 9>"${TMPDIR:-/tmp}/spillway-images.lock"
flock 9 # two builds at once would build everything twice

if (($# == 0)); then
  set -- kafka registry clickhouse prometheus spillway
  write_env >"$scratch/local.env"
fi
for name in "$@"; do
  build "$name"
  [[ $name != spillway ]] || small_enough
done
sweep
if [[ -e $scratch/local.env ]]; then
  mv "$scratch/local.env" "$here/local.env"
  say "deploy/images/local.env names them"
fi
