package codec

import (
	"errors"
	"strings"
	"testing"

	"github.com/spillway/spillway/schemas"
)

func TestAmbiguous(t *testing.T) {
	rec := func(name, fields string) string {
		return `{"type":"record","name":"` + name + `","fields":[` + fields + `]}`
	}
	for _, c := range []struct{ union, both string }{
		{`["null","string"]`, ""},
		{`["null","boolean","int",{"type":"array","items":"int"},{"type":"map","values":"int"}]`, ""},
		{`["int","long"]`, "0"},
		{`["long","double"]`, "0"},
		{`["int","string"]`, ""},
		{`["int","double"]`, "0"},
		{`["long","string"]`, `"0"`},
		{`["double","string"]`, `"NaN"`},
		{`["double",{"type":"enum","name":"E","symbols":["NaN"]}]`, `"NaN"`},
		{`["double",{"type":"enum","name":"E","symbols":["A"]}]`, ""},
		{`["bytes","string"]`, `""`},
		{`["bytes","double"]`, `"Infinity"`},
		{`["bytes","long"]`, `"1111"`},
		{`["bytes",{"type":"fixed","name":"F","size":5}]`, `"AAAAAAA="`},
		{`[{"type":"fixed","name":"F","size":5},{"type":"fixed","name":"G","size":4}]`, ""},
		{`[{"type":"fixed","name":"F","size":9},{"type":"fixed","name":"G","size":9}]`, `"AAAAAAAAAAAA"`},
		{`[{"type":"fixed","name":"F","size":9},"long"]`, `"111111111111"`},
		{`[{"type":"fixed","name":"F","size":5},"long"]`, ""},
		{`[{"type":"enum","name":"E","symbols":["A","B"]},{"type":"enum","name":"G","symbols":["C","B"]}]`, `"B"`},
		{`[{"type":"enum","name":"E","symbols":["A","B"]},{"type":"enum","name":"G","symbols":["C","D"]}]`, ""},
		{`[{"type":"enum","name":"E","symbols":["ABCD"]},"bytes"]`, `"ABCD"`},
		{`[{"type":"enum","name":"E","symbols":["ABC"]},"bytes"]`, ""},
		{`["int",{"type":"long","logicalType":"timestamp-millis"}]`, ""},
		{`["string",{"type":"long","logicalType":"timestamp-millis"}]`, `"2006-01-02T15:04:05Z"`},
		{`[{"type":"int","logicalType":"date"},{"type":"long","logicalType":"timestamp-millis"}]`, ""},
		{`[{"type":"int","logicalType":"time-millis"},{"type":"long","logicalType":"time-micros"}]`, `"15:04:05"`},
		{`["int",{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}]`, "0"},
		{`[{"type":"fixed","name":"D","size":12,"logicalType":"duration"},"bytes"]`, `"PT0S"`},
		{`[{"type":"fixed","name":"D","size":12,"logicalType":"duration"},"int"]`, ""},
		{`[{"type":"map","values":"int"},` + rec("A", `{"name":"a","type":"int"}`) + `]`, `{"a":0}`},
		{`[{"type":"map","values":"string"},` + rec("A", `{"name":"a","type":"int"}`) + `]`, ""},
		{`[{"type":"map","values":"string"},` + rec("A", `{"name":"a","type":"int","default":1}`) + `]`, "{}"},
		{`[` + rec("A", `{"name":"a","type":"int"}`) + `,` + rec("B", `{"name":"b","type":"int"}`) + `]`, ""},
		{`[` + rec("A", `{"name":"a","type":"int"}`) + `,` + rec("B", `{"name":"a","type":["null","long"]},{"name":"c","type":"int","default":0}`) + `]`, `{"a":0}`},
		{`[` + rec("A", `{"name":"a","type":"int","default":1}`) + `,` + rec("B", `{"name":"b","type":["null","int"],"default":null}`) + `]`, "{}"},
		{`["null",` + rec("A", `{"name":"a","type":"A"}`) + `,` + rec("B", `{"name":"a","type":"B"}`) + `]`, ""},
		{`[` + rec("A", `{"name":"a","type":{"type":"array","items":"A"}}`) + `,` + rec("B", `{"name":"a","type":{"type":"array","items":"B"}}`) + `]`, `{"a":[]}`},
	} {
		for _, schema := range []string{c.union, rec("Top", `{"name":"list","type":{"type":"array","items":{"type":"map","values":`+c.union+`}}}`)} {
			codec := compiled(t, schema)
			err := codec.Ambiguous()
			if c.both == "" {
				if err != nil {
					t.Errorf("%s: %v", c.union, err)
				}
				continue
			}
			var e *Error
			if !errors.As(err, &e) || e.Reason != schemas.SchemaUnsupported || !strings.HasSuffix(e.Message, "both accept the JSON "+c.both) {
				t.Errorf("%s: got %v, want %s", c.union, err, c.both)
				continue
			}
			if schema != c.union && e.Path != "list[].*" {
				t.Errorf("%s: path is %q", c.union, e.Path)
			}
		}
		witness(t, compiled(t, c.union).root, c.both)
	}
}

// witness checks that two branches do accept the JSON that is said to fit both.
func witness(t *testing.T, union *node, both string) {
	t.Helper()
	if both == "" {
		return
	}
	takers := 0
	for _, b := range union.branch {
		if accepts(b, both) {
			takers++
		}
	}
	if takers < 2 {
		t.Errorf("%s: %d branches accept %s", union.says, takers, both)
	}
}

func TestAmbiguousIsBounded(t *testing.T) {
	// Records that differ only far down, each with two fields of the next kind.
	chain := func(prefix, leaf string) string {
		schema := leaf
		for _, c := range "abcdefghijklmnopqrstuvwx" {
			schema = `{"type":"record","name":"` + prefix + string(c) + `","fields":[{"name":"l","type":` + schema + `}`
			if c > 'a' {
				schema += `,{"name":"r","type":"` + prefix + string(c-1) + `"}`
			}
			schema += `]}`
		}
		return schema
	}
	codec := compiled(t, `[`+chain("A", `"int"`)+`,`+chain("B", `"long"`)+`]`)
	if err := codec.Ambiguous(); err == nil {
		t.Error("int and long far down are ambiguous")
	}
}
