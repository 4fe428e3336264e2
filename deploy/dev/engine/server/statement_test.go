package server

import (
	"bytes"
	"encoding/hex"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestParseStatement(t *testing.T) {
	for _, c := range []struct{ text, query, format, rows string }{
		{"SELECT 1", "", "", ""},
		{"SELECT 1 FORMAT JSON", "", "JSON", ""},
		{"select 1 format JSON;", "", "JSON", ""},
		{"SELECT 'x FORMAT y'", "", "", ""},
		{"SELECT (SELECT 1 FORMAT JSON)", "", "", ""},
		{"SELECT 1 -- FORMAT CSV", "", "", ""},
		{"SELECT 1 /* FORMAT CSV */ FORMAT TSV", "", "TSV", ""},
		{"SELECT $a$ FORMAT CSV $a$", "", "", ""},
		{"INSERT INTO t FORMAT Native\n\n\x01", "INSERT INTO t ", "Native", "\n\x01"},
		{"INSERT INTO t (a, b) FORMAT JSONEachRow {\"a\":1}", "INSERT INTO t (a, b) ", "JSONEachRow", "{\"a\":1}"},
		{"/* c */ insert into t settings async_insert=0 format CSV \r\n1", "/* c */ insert into t settings async_insert=0 ", "CSV", "1"},
		{"INSERT INTO t VALUES (1)", "INSERT INTO t ", "Values", " (1)"},
		{"INSERT INTO t (`values`, \"format\") VALUES (1)", "INSERT INTO t (`values`, \"format\") ", "Values", " (1)"},
		{"INSERT INTO format VALUES (1)", "INSERT INTO format ", "Values", " (1)"},
		{"INSERT INTO db.values FORMAT TSV\n1", "INSERT INTO db.values ", "TSV", "1"},
		{"INSERT INTO TABLE values FORMAT TSV\n1", "INSERT INTO TABLE values ", "TSV", "1"},
		{"INSERT INTO FUNCTION file('x', 'CSV', 'format String') FORMAT TSV\n1", "INSERT INTO FUNCTION file('x', 'CSV', 'format String') ", "TSV", "1"},
		{"INSERT INTO t SELECT * FROM u FORMAT JSON", "", "JSON", ""},
		{"INSERT INTO t (SELECT 1) FORMAT JSON", "", "JSON", ""},
		{"INSERT INTO t WITH 1 AS x SELECT x", "", "", ""},
		{"INSERT INTO t FROM INFILE 'x' FORMAT CSV", "", "CSV", ""},
		{"INSERT INTO t", "", "", ""},
		{"", "", "", ""},
	} {
		got := parseStatement([]byte(c.text))
		want := statement{query: c.text, format: c.format}
		if c.query != "" {
			want = statement{insert: true, query: c.query, format: c.format, rows: len(c.text) - len(c.rows)}
		}
		if got != want {
			t.Errorf("%q:\n got %+v\nwant %+v", c.text, got, want)
		}
	}
}

// FuzzParseStatement: no panic, and an insert's parts are parts of the text.
func FuzzParseStatement(f *testing.F) {
	for _, s := range []string{
		"SELECT 1 FORMAT JSON", "INSERT INTO t FORMAT Native\n\x00", "INSERT INTO t (a) VALUES ('it''s \\' x')", "$a$ b $a$ c",
		"/* open", "-- line\nSELECT", "'open", "((( FORMAT x", "INSERT INTO t FORMAT", "insert into `a\\`b` values",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s := parseStatement(text)
		switch {
		case !s.insert && s.query != string(text):
			t.Errorf("the query changed: %q", s.query)
		case s.insert && (!strings.HasPrefix(string(text), s.query) || s.rows < len(s.query) || s.rows > len(text) || s.format == ""):
			t.Errorf("%+v", s)
		}
	})
}

// FuzzBlocks: what was written is read, and noise is an error, not a panic.
func FuzzBlocks(f *testing.F) {
	f.Add([]byte("some rows"), uint16(0))
	f.Add([]byte{}, uint16(3))
	f.Fuzz(func(t *testing.T, p []byte, damage uint16) {
		for _, method := range []string{"LZ4", "ZSTD", "NONE"} {
			var b bytes.Buffer
			if _, err := newBlockWriter(&b, method).Write(p); err != nil {
				t.Fatal(err)
			}
			whole := bytes.Clone(b.Bytes())
			var got bytes.Buffer
			if _, err := got.ReadFrom(newBlockReader(&b)); err != nil || !bytes.Equal(got.Bytes(), p) {
				t.Fatalf("%s: %q, %v", method, got.Bytes(), err)
			}
			if len(whole) > 0 { // the checksum covers each byte
				whole[int(damage)%len(whole)] ^= 0x41
				if _, err := got.ReadFrom(newBlockReader(bytes.NewReader(whole))); err == nil {
					t.Errorf("%s: byte %d of %d is damaged, and nobody noticed", method, int(damage)%len(whole), len(whole))
				}
			}
		}
	})
}

func TestQuote(t *testing.T) {
	if got := quote(`a'b\`); got != `'a\'b\\'` {
		t.Error(got)
	}
	if got := quoteName("a`b\\"); got != "`a\\`b\\\\`" {
		t.Error(got)
	}
}

// TestHello: golden bytes of the one block that is encoded here.
func TestHello(t *testing.T) {
	names := "0d" + hex.EncodeToString([]byte("displayName()")) + "06" + hex.EncodeToString([]byte("String"))
	for protocol, want := range map[int]string{
		0:     "0401" + names + "0c" + hex.EncodeToString([]byte("spillway-dev")),
		54453: "010002ffffffff00" + "0401" + names + "0c",
		54454: "010002ffffffff00" + "0401" + names + "00" + "0c",
	} {
		if got := hex.EncodeToString(hello(protocol, "26.7.2.1", "UTC")); !strings.HasPrefix(got, want) {
			t.Errorf("%d: %s", protocol, got)
		}
	}
	if got := hex.EncodeToString(hello(0, "26.7", "UTC")); !strings.HasSuffix(got, hex.EncodeToString([]byte("\x0arevision()\x06UInt32\x00\x00\x00\x00\x0atimezone()\x06String\x03UTC"))) {
		t.Error(got)
	}
}

func TestParseException(t *testing.T) {
	for text, want := range map[string]exception{
		"Code: 60. DB::Exception: no table. (UNKNOWN_TABLE)\n": {60, "Code: 60. DB::Exception: no table. (UNKNOWN_TABLE)"},
		"std::exception. Code: 1001. x":                        {1001, "Code: 1001. x"},
		"what":                                                 {codeUnknown, "Code: 1002. DB::Exception: what. (UNKNOWN_EXCEPTION)"},
		"Code: 99999999999999999999. DB::Exception: overflow":  {codeUnknown, "Code: 99999999999999999999. DB::Exception: overflow"},
	} {
		if got := parseException(text); *got != want {
			t.Errorf("%q: %+v", text, *got)
		}
	}
}

func TestLocalNames(t *testing.T) {
	for name, want := range map[string]bool{
		"127.0.0.1:8123": true, "localhost": true, "LocalHost:8123": true, "[::1]:8123": true, "ch.localhost:1": true,
		"host.docker.internal:8123": true, "evil.example:8123": false, "localhost.evil.example": false, "": false,
	} {
		r := httptest.NewRequest("GET", "http://x/", nil)
		r.Host = name
		if isForeign(r) == want {
			t.Errorf("%q: foreign = %v", name, !want)
		}
	}
}
