#!/bin/sh
# Makes the files that docker-compose.yml takes its secrets from, those that are not there yet:
#
#	keys.json             the key that tokens are signed and verified with (a JWKS with one HS256 key)
#	clickhouse_password   of ClickHouse's user spillway
#	grafana_password      of Grafana's user admin
#	scrape_token          what Prometheus shows the admin ports: an operator's token of ten years, signed with keys.json
#
# The folder is the owner's alone; the files can be read by all, because the containers run as another user and see only
# the file they are given. Remove a file and call this again to change it, then start the containers anew.
set -eu
dir=${1:-${SPILLWAY_SECRETS:-$(dirname "$0")/secrets}}
command -v openssl >/dev/null || { echo "secrets.sh: openssl is needed" >&2; exit 1; }
umask 077
mkdir -p "$dir"

b64url() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }

# keep NAME: writes standard input to a file at once, so that a file is whole or not there
keep() {
	cat >"$dir/$1.new"
	chmod 644 "$dir/$1.new"
	mv "$dir/$1.new" "$dir/$1"
	echo "made $dir/$1"
}

[ -s "$dir/clickhouse_password" ] || openssl rand -hex 24 | keep clickhouse_password
[ -s "$dir/grafana_password" ] || openssl rand -hex 12 | keep grafana_password

if [ ! -s "$dir/keys.json" ]; then
	printf '{"keys":[{"kty":"oct","alg":"HS256","use":"sig","kid":"compose","k":"%s"}]}\n' "$(openssl rand 32 | b64url)" | keep keys.json
	rm -f "$dir/scrape_token" # was signed with another key
fi

if [ ! -s "$dir/scrape_token" ]; then
	key=$(sed -n 's/.*"kid":"compose","k":"\([^"]*\)".*/\1/p' "$dir/keys.json")
	[ -n "$key" ] || { echo "secrets.sh: keys.json is not from here: put a token into $dir/scrape_token (spillway token '*' --role operator)" >&2; exit 1; }
	case $((${#key} % 4)) in 2) key=$key== ;; 3) key=$key= ;; esac
	hex=$(printf %s "$key" | tr -- '-_' '+/' | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
	now=$(date +%s)
	text=$(printf '{"alg":"HS256","typ":"JWT","kid":"compose"}' | b64url).$(printf '{"tenant":"*","role":"operator","sub":"prometheus","iat":%d,"exp":%d}' "$now" $((now + 315360000)) | b64url)
	printf '%s.%s' "$text" "$(printf %s "$text" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hex" -binary | b64url)" | keep scrape_token
fi
