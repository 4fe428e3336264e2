#!/bin/bash
# The stack of docker-compose.yml for a person:
#
#	stack.sh up      make its secrets, start it, wait until all of it is ready
#	stack.sh demo    up, then play the trace through it for a minute and say where to look
#	stack.sh down    stop it, ingest first; its data stays (docker compose down -v removes it)
#
# Images that `make images` has built are taken instead of the public ones, unless the environment names others; there is no
# local Grafana, so that is left out then. Data and secrets of the stack are those of the checkout.
set -euo pipefail
cd "$(dirname "$0")/.."

secrets=${SPILLWAY_SECRETS:-deploy/compose/secrets}
ready_within=${SPILLWAY_READY_WITHIN:-240} # seconds, from the first container to the last one healthy

die() { echo "stack: $*" >&2; exit 1; }

if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
elif command -v docker-compose >/dev/null; then
  compose=(docker-compose)
else
  die "neither docker compose nor docker-compose is installed"
fi

# Not compose's --env-file: what the environment says goes first, and the container of a person's call needs it too.
if [[ -e deploy/images/local.env ]]; then
  while IFS='=' read -r name value; do
    [[ -n ${!name:-} ]] || export "$name=$value"
  done <deploy/images/local.env
fi

services() {
  local leave=none
  [[ ! -e deploy/images/local.env || -n ${SPILLWAY_IMAGE_GRAFANA:-} ]] || leave=grafana
  "${compose[@]}" config --services | grep -vxE "cli|$leave"
}

# unready SERVICE... prints their containers that are not healthy, or ended badly. What a person ran beside them does not count.
unready() {
  local ids
  ids=$("${compose[@]}" ps -aq "$@") || die "compose does not say which containers there are"
  [[ -n $ids ]] || die "there is no container, so nothing is ready"
  xargs docker inspect <<<"$ids" \
    -f '{{if ne (index .Config.Labels "com.docker.compose.oneoff") "True"}}{{.Name}} {{.State.Status}} {{.State.ExitCode}}{{with .State.Health}} {{.Status}}{{end}}{{end}}' |
    awk 'NF && !/ (exited 0.*|running 0( healthy)?)$/' || echo "a container that is gone"
}

up() {
  local list left
  deploy/compose/secrets.sh
  list=$(services)
  # shellcheck disable=SC2086 # one word a service
  "${compose[@]}" up -d $list
  echo "waiting until all are ready"
  for ((SECONDS = 0; SECONDS < ready_within; )); do
    # shellcheck disable=SC2086 # as above
    left=$(unready $list)
    [[ -n $left ]] || return 0
    sleep 1
  done
  die "not ready after $ready_within s (docker logs NAME says why):"$'\n'"$left"
}

# places writes the stack's addresses and key to a folder, where the commands for people look for them.
places() {
  local web=http://127.0.0.1
  cp "$secrets/keys.json" "$1/keys.json"
  cat >"$1/dev.json" <<END
{
  "kafka": "127.0.0.1:${SPILLWAY_PORT_KAFKA:-9092}",
  "registry": "$web:${SPILLWAY_PORT_REGISTRY:-8081}/apis/ccompat/v7",
  "clickhouse": "http://spillway:$(cat "$secrets/clickhouse_password")@127.0.0.1:${SPILLWAY_PORT_CLICKHOUSE:-8123}",
  "ingest": "$web:${SPILLWAY_PORT_INGEST:-8080}",
  "fanout": "ws://127.0.0.1:${SPILLWAY_PORT_FANOUT_EU_1:-8090}",
  "audit": "$web:${SPILLWAY_PORT_AUDIT:-8060}",
  "control": "$web:${SPILLWAY_PORT_CONTROL:-8070}"
}
END
}

demo() {
  local data schema played=0
  up
  data=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder of now
  trap "rm -rf '$data'" EXIT
  chmod 700 "$data"
  places "$data"
  export SPILLWAY_DATA=$data
  for schema in demo.message ai.inference.request ai.inference.token_delta ai.inference.completed; do
    ./spillway schemas register "schemas/$schema.avsc"
  done
  ./spillway apply -f integration/testdata/tenants.yaml
  ./spillway load --trace integration/load/testdata/azure_llm_inference_conv_2023.csv --speed 5 --tenants 20 --duration 60s || played=$?
  look
  watch_it
  return $played
}

look() {
  cat <<END

Where to look:
  ClickHouse  curl -s 'http://127.0.0.1:${SPILLWAY_PORT_CLICKHOUSE:-8123}/?database=spillway' -u "spillway:\$(cat $secrets/clickhouse_password)" -d 'SHOW TABLES'
  Prometheus  http://127.0.0.1:${SPILLWAY_PORT_PROMETHEUS:-9090}/alerts
END
  if services | grep -qx grafana; then
    echo "  Grafana     http://127.0.0.1:${SPILLWAY_PORT_GRAFANA:-3000}, user admin, password in $secrets/grafana_password"
  fi
  echo "  Stop it     make down"
}

# watch_it says how to send and see an event, with the images of this stack.
watch_it() {
  local cli="${compose[*]} run --rm cli"
  [[ ! -e deploy/images/local.env ]] || cli="env \$(cat deploy/images/local.env) $cli"
  cat <<END
  Follow it   $cli sub acme 'chat.*' --from begin
  Send        $cli pub acme chat.1 '{"text":"hello"}'
END
}

case ${1:-} in
  up) up; look ;; # not &&: an error inside would not end it
  demo) demo ;;
  down) "${compose[@]}" down ;;
  *) die "usage: stack.sh up|demo|down" ;;
esac
