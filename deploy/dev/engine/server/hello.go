package server

import "encoding/binary"

// helloQuery is how ClickHouse clients open an HTTP connection (clickhouse-go,
// conn_http.go queryHello): they decode its answer with the revision they
// speak themselves, and everything after it with the one found inside.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

// Revisions of the native block format that matter for the hello's encoding.
const revisionCustomSerialization = 54454

// hello answers helloQuery in Native. It says revision 0, because that is the
// encoding the engine's C interface emits: from then on its blocks pass
// through untouched.
//
//	block info (revision > 0): 1, is_overflows bool, 2, bucket int32, 0
//	columns, rows as varints; per column: name, type, [custom bool], values
func hello(protocol int, version, timezone string) []byte {
	var b []byte
	if protocol > 0 {
		b = append(b, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0)
	}
	b = append(b, 4, 1)
	column := func(name, kind string, value []byte) {
		b = appendString(appendString(b, name), kind)
		if protocol >= revisionCustomSerialization {
			b = append(b, 0)
		}
		b = append(b, value...)
	}
	column("displayName()", "String", appendString(nil, displayName))
	column("version()", "String", appendString(nil, version))
	column("revision()", "UInt32", []byte{0, 0, 0, 0})
	column("timezone()", "String", appendString(nil, timezone))
	return b
}

// displayName is what clients show for this server.
const displayName = "spillway-dev"

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
