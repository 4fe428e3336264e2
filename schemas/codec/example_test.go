package codec_test

import (
	"errors"
	"fmt"

	"github.com/spillway/spillway/schemas/codec"
)

func Example() {
	c, err := codec.Compile(`{"type":"record","name":"demo.Message","fields":[
		{"name":"text","type":"string"},
		{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null}]}`)
	if err != nil {
		panic(err)
	}
	value := codec.AppendHeader(nil, 7)
	value, err = c.AppendAvro(value, []byte(`{"at":"2026-11-24T14:00:00+01:00","text":"hi"}`), codec.DefaultMax)
	if err != nil {
		panic(err)
	}
	id, body, err := codec.ParseHeader(value)
	if err != nil {
		panic(err)
	}
	text, err := c.AppendJSON(nil, body, codec.DefaultMax)
	fmt.Println(id, c.Name(), string(text), err)

	_, err = c.AppendAvro(nil, []byte(`{"txt":"hi"}`), codec.DefaultMax)
	var e *codec.Error
	if errors.As(err, &e) {
		fmt.Println(e.Reason, e.In("data"))
	}
	// Output:
	// 7 demo.Message {"text":"hi","at":"2026-11-24T13:00:00.000Z"} <nil>
	// schema_mismatch data.txt: record demo.Message has no such field (did you mean "text"?)
}
