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

func TestNoAllocations(t *testing.T) {
	c := compiled(t, "message")
	body, err := c.AppendAvro(nil, []byte(benchJSON), 0)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { dst, _ = c.AppendJSON(dst[:0], body, 0) }); n != 0 {
		t.Errorf("AppendJSON allocates %v times", n)
	}
	if string(dst) != benchJSON {
		t.Errorf("got %s", dst)
	}
	text := []byte(benchJSON)
	// The pool may forget an encoder at any time, under the race detector often.
	if n := testing.AllocsPerRun(100, func() { dst, _ = c.AppendAvro(dst[:0], text, 0) }); n > 3 {
		t.Errorf("AppendAvro allocates %v times", n)
	}
}
