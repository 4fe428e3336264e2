package codec

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// TestGolden plays testdata/golden.txt: a schema by name or text, then lines
// of "hex of the Avro body | plain JSON". "=" goes both ways, ">" only from
// Avro to JSON, "<" only from JSON to Avro.
func TestGolden(t *testing.T) {
	file, err := os.Open("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var codec *Codec
	lines, played := bufio.NewScanner(file), 0
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if schema, ok := strings.CutPrefix(line, "schema "); ok {
			codec = compiled(t, schema)
			continue
		}
		played++
		code, text, _ := strings.Cut(line[1:], "|")
		body, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(code), " ", ""))
		if err != nil {
			t.Fatalf("line %d: %v", number, err)
		}
		text = strings.TrimSpace(text)
		if line[0] != '<' {
			got, err := codec.AppendJSON(nil, body, 0)
			if err != nil || string(got) != text {
				t.Errorf("line %d: AppendJSON(%x)\n got %s, %v\nwant %s", number, body, got, err, text)
			}
			if err := codec.Skip(body); err != nil {
				t.Errorf("line %d: Skip: %v", number, err)
			}
		}
		if line[0] != '>' {
			got, err := codec.AppendAvro(nil, []byte(text), 0)
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("line %d: AppendAvro(%s)\n got %x, %v\nwant %x", number, text, got, err, body)
			}
		}
	}
	if played < 100 {
		t.Errorf("only %d lines played", played)
	}
}
