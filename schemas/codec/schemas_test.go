package codec

import "testing"

// Schemas that the tests share, by what they hold.
var testSchemas = map[string]string{
	"scalars": `{"type":"record","name":"t.Scalars","fields":[
		{"name":"z","type":"null"},{"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":"long"},
		{"name":"f","type":"float"},{"name":"d","type":"double"},{"name":"y","type":"bytes"},{"name":"s","type":"string"},
		{"name":"x","type":{"type":"fixed","name":"Four","size":4}},
		{"name":"e","type":{"type":"enum","name":"Color","symbols":["RED","GREEN","BLUE"]}}]}`,
	"logical": `{"type":"record","name":"t.Logical","fields":[
		{"name":"date","type":{"type":"int","logicalType":"date"}},
		{"name":"tm","type":{"type":"int","logicalType":"time-millis"}},
		{"name":"tu","type":{"type":"long","logicalType":"time-micros"}},
		{"name":"ms","type":{"type":"long","logicalType":"timestamp-millis"}},
		{"name":"us","type":{"type":"long","logicalType":"timestamp-micros"}},
		{"name":"ns","type":{"type":"long","logicalType":"timestamp-nanos"}},
		{"name":"lms","type":{"type":"long","logicalType":"local-timestamp-millis"}},
		{"name":"lus","type":{"type":"long","logicalType":"local-timestamp-micros"}},
		{"name":"lns","type":{"type":"long","logicalType":"local-timestamp-nanos"}},
		{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
		{"name":"big","type":{"type":"bytes","logicalType":"decimal","precision":60,"scale":10}},
		{"name":"fixed","type":{"type":"fixed","name":"Dec","size":8,"logicalType":"decimal","precision":18,"scale":0}},
		{"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
		{"name":"uuid16","type":{"type":"fixed","name":"U16","size":16,"logicalType":"uuid"}},
		{"name":"dur","type":{"type":"fixed","name":"Dur","size":12,"logicalType":"duration"}}]}`,
	"nested": `{"type":"record","name":"t.Nested","fields":[
		{"name":"items","type":{"type":"array","items":{"type":"record","name":"Item","fields":[
			{"name":"sku","type":"string"},{"name":"price","type":"long"}]}}},
		{"name":"labels","type":{"type":"map","values":["null","string"]}},
		{"name":"u","type":["null","long","string","boolean"],"default":null},
		{"name":"first","type":["null","Item"],"default":null},
		{"name":"grid","type":{"type":"array","items":{"type":"array","items":"int"}},"default":[]}]}`,
	"list": `{"type":"record","name":"t.List","fields":[
		{"name":"v","type":"int"},{"name":"next","type":["null","List"],"default":null}]}`,
	"tree": `{"type":"record","name":"t.Tree","fields":[
		{"name":"kids","type":{"type":"map","values":"t.Tree"}},
		{"name":"rows","type":{"type":"array","items":"t.Tree"}}]}`,
	"nulls":    `{"type":"array","items":"null"}`,
	"empties":  `{"type":"map","values":{"type":"array","items":{"type":"record","name":"Empty","fields":[]}}}`,
	"defaults": defaultsSchema,
	"message": `{"type":"record","name":"demo.Message","fields":[
		{"name":"text","type":"string"},{"name":"user","type":["null","string"],"default":null},
		{"name":"seq","type":"long","default":0},{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
		{"name":"urgent","type":"boolean","default":false}]}`,
}

const defaultsSchema = `{"type":"record","name":"t.Defaults","fields":[
	{"name":"b","type":"boolean","default":true},{"name":"i","type":"int","default":-7},{"name":"l","type":"long","default":9007199254740993},
	{"name":"f","type":"float","default":1.5},{"name":"d","type":"double","default":-0.25},{"name":"y","type":"bytes","default":"\u00ff\u0000"},
	{"name":"s","type":"string","default":"hé"},{"name":"x","type":{"type":"fixed","name":"Two","size":2},"default":"ab"},
	{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]},"default":"B"},
	{"name":"a","type":{"type":"array","items":"int"},"default":[1,2]},{"name":"m","type":{"type":"map","values":"long"},"default":{"k":5}},
	{"name":"r","type":{"type":"record","name":"R","fields":[{"name":"p","type":"int","default":3},{"name":"q","type":"string"}]},"default":{"q":"x"}},
	{"name":"u","type":["string","null"],"default":"dflt"},{"name":"n","type":["string","null"]},{"name":"z","type":"null"},
	{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"},"default":1000},
	{"name":"uf","type":["null","float","boolean"],"default":42},
	{"name":"ue","type":["null","E"],"default":null}]}`

func compiled(t testing.TB, schema string) *Codec {
	t.Helper()
	if text, ok := testSchemas[schema]; ok {
		schema = text
	}
	c, err := Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
