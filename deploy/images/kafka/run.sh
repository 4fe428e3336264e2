#!/bin/bash
# Becomes the broker, as the public image's entry point does:
#
#	KAFKA_* ─▶ server.properties ─▶ format the storage, at the first start ─▶ kafka.Kafka
#
# KAFKA_LOG_DIRS is log.dirs: "_" stands for ".", "__" for "_", "___" for "-". A mounted /mnt/shared/config comes first and
# the variables are appended to it; without both, the image's own server.properties holds.
set -euo pipefail

home=/opt/kafka
config=$home/config/server.properties
secrets=/etc/kafka/secrets

die() { echo "kafka: $*" >&2; exit 1; }

# Variables that begin with KAFKA_ and are no property of the broker.
not_properties=' VERSION HEAP_OPTS LOG4J_OPTS OPTS JMX_OPTS JVM_PERFORMANCE_OPTS GC_LOG_OPTS CDS_OPTS LOG4J_ROOT_LOGLEVEL
 LOG4J_LOGGERS TOOLS_LOG4J_LOGLEVEL JMX_HOSTNAME ADD_SCRAM SSL_KEYSTORE_FILENAME SSL_KEYSTORE_CREDENTIALS SSL_KEY_CREDENTIALS
 SSL_TRUSTSTORE_FILENAME SSL_TRUSTSTORE_CREDENTIALS '

# from_secrets NAME PROPERTY: the file that KAFKA_NAME names holds the property's value.
from_secrets() {
  local var=KAFKA_$1 file
  [[ -n ${!var:-} ]] || return 0
  file=$secrets/${!var}
  [[ -r $file ]] || die "$var: $file cannot be read"
  export "$2=$(cat "$file")"
}

# stores is the public image's way to name key stores: files in /etc/kafka/secrets.
stores() {
  local store var
  for store in KEYSTORE TRUSTSTORE; do
    var=KAFKA_SSL_${store}_FILENAME
    [[ -n ${!var:-} ]] || continue
    [[ -r $secrets/${!var} ]] || die "$var: $secrets/${!var} cannot be read"
    export "KAFKA_SSL_${store}_LOCATION=$secrets/${!var}"
  done
  from_secrets SSL_KEYSTORE_CREDENTIALS KAFKA_SSL_KEYSTORE_PASSWORD
  from_secrets SSL_KEY_CREDENTIALS KAFKA_SSL_KEY_PASSWORD
  from_secrets SSL_TRUSTSTORE_CREDENTIALS KAFKA_SSL_TRUSTSTORE_PASSWORD
}

# properties prints what the variables say.
properties() {
  local var name
  for var in $(compgen -e KAFKA_); do
    name=${var#KAFKA_}
    [[ $not_properties =~ [[:space:]]${name}[[:space:]] ]] && continue
    name=${name,,}
    name=${name//_/.}
    name=${name//.../-}
    name=${name//../_}
    printf '%s=%s\n' "$name" "${!var}"
  done
}

property() { sed -n "s/^$1=//p" "$config" | tail -n 1; }

write_config() {
  local given
  if [[ ${KAFKA_PROCESS_ROLES:-} == controller ]]; then
    [[ -z ${KAFKA_ADVERTISED_LISTENERS:-} ]] || die "KAFKA_ADVERTISED_LISTENERS: a controller alone has none"
    unset KAFKA_ADVERTISED_LISTENERS
  elif [[ -z ${KAFKA_LISTENERS:-} && -n ${KAFKA_ADVERTISED_LISTENERS:-} ]]; then
    KAFKA_LISTENERS=$(sed -E 's|://[^:]*:|://0.0.0.0:|g' <<<"$KAFKA_ADVERTISED_LISTENERS")
    export KAFKA_LISTENERS
  fi
  stores
  given=$(properties)
  rm -f "$config" # of the container's last start
  cp -R /mnt/shared/config/. $home/config/
  if [[ -s $config || -n $given ]]; then
    printf '\n%s\n' "$given" >>"$config"
  else
    cp $home/server.properties "$config"
  fi
  [[ -n $(property log.dirs)$(property log.dir) ]] || echo log.dirs=/var/lib/kafka/data >>"$config"
}

# format prepares empty log directories. KAFKA_ADD_SCRAM adds users, separated by semicolons:
# SCRAM-SHA-256=[name=ann,password=secret];SCRAM-SHA-512=[name=ann,password=secret]
format() {
  local dirs args=() users user
  dirs=$(property log.dirs)
  dirs=${dirs:-$(property log.dir)}
  [[ ! -e ${dirs%%,*}/meta.properties ]] || return 0
  IFS=';' read -ra users <<<"${KAFKA_ADD_SCRAM:-}"
  for user in "${users[@]}"; do
    args+=(--add-scram "$user")
  done
  # Its own heap: it must start where the broker's options do not fit (an agent, a debugger, JMX).
  KAFKA_HEAP_OPTS=-Xmx128m KAFKA_OPTS='' KAFKA_JMX_OPTS='' $home/bin/java.sh kafka.tools.StorageTool format \
    --cluster-id "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" --config "$config" --ignore-formatted "${args[@]}"
}

write_config
format
exec $home/bin/java.sh kafka.Kafka "$config"
