package codec

import "testing"

const benchJSON = `{"text":"The quick brown fox jumps over the lazy dog","user":"alice","seq":123456,` +
	`"at":"2026-11-24T13:00:00.123Z","urgent":true}`

func BenchmarkAppendJSON(b *testing.B) {
	c := compiled(b, "message")
	body, err := c.AppendAvro(nil, []byte(benchJSON), 0)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = c.AppendJSON(dst[:0], body, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendAvro(b *testing.B) {
	c := compiled(b, "message")
	dst := make([]byte, 0, 1024)
	text := []byte(benchJSON)
	var err error
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = c.AppendAvro(dst[:0], text, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// allJSON has a value of every kind that AppendJSON promises to write without
// allocating.
var allJSON = map[string]string{
	"message": benchJSON,
	"nested": `{"items":[{"sku":"a\n","price":1},{"sku":"é","price":"9007199254740993"}],"labels":{"a":null,"b":"x"},` +
		`"u":true,"first":{"sku":"","price":0},"grid":[[1,2],[]]}`,
	"scalars": `{"z":null,"b":true,"i":1,"l":2,"f":1.5,"d":"NaN","y":"AQID","s":"x","x":"AQIDBA==","e":"RED"}`,
	"logical": `{"date":"2026-11-24","tm":"13:00:00.000","tu":"13:00:00.000000","ms":"2026-11-24T13:00:00.000Z",` +
		`"us":"2026-11-24T13:00:00.000000Z","ns":"2026-11-24T13:00:00.000000000Z","lms":"2026-11-24T13:00:00.000",` +
		`"lus":"2026-11-24T13:00:00.000000","lns":"2026-11-24T13:00:00.000000000","price":"-12.34","big":"0.0000000001",` +
		`"fixed":"7","uuid":"123e4567-e89b-12d3-a456-426614174000","uuid16":"123e4567-e89b-12d3-a456-426614174000","dur":"P1M2DT3.004S"}`,
}

func TestNoAllocations(t *testing.T) {
	for name, text := range allJSON {
		c := compiled(t, name)
		body, err := c.AppendAvro(nil, []byte(text), 0)
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]byte, 0, 4096)
		if n := testing.AllocsPerRun(100, func() { dst, _ = c.AppendJSON(dst[:0], body, 0) }); n != 0 {
			t.Errorf("%s: AppendJSON allocates %v times", name, n)
		}
		if string(dst) != text {
			t.Errorf("%s: got %s", name, dst)
		}
		// One encoder, not the pool: that may forget its own at any time.
		e, input := new(encoder), []byte(text)
		if n := testing.AllocsPerRun(100, func() { dst, _ = e.encode(c.root, dst[:0], input, DefaultMax) }); n != 0 {
			t.Errorf("%s: AppendAvro allocates %v times", name, n)
		}
	}
}
