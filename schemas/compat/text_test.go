package compat

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/avro"
)

const plainText = `{"type":"record","name":"T","fields":[{"name":"n","type":["null","int"]}]}`

func TestCheckTexts(t *testing.T) {
	found, err := CheckTexts(FullTransitive, plainText, []string{strings.Replace(plainText, "int", "long", 1)})
	if err != nil || len(found) != 1 || found[0].Path != "n" || found[0].Direction != DirBackward {
		t.Errorf("got %v, %v", found, err)
	}
	for text, words := range map[string]string{
		`{`: "schema", strings.Replace(plainText, `"null"`, `"long"`, 1): "n: branches long and int of the union both accept the JSON 0",
	} {
		if _, err := CheckTexts(None, text, nil); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %q", text, err, words)
		}
	}
	if _, err := CheckTexts(None, plainText, []string{plainText, "{"}); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

func TestAmbiguous(t *testing.T) {
	if err := Ambiguous(avro.MustParse(plainText)); err != nil {
		t.Error(err)
	}
	if err := Ambiguous(avro.MustParse(`["bytes","string"]`)); err == nil || !strings.Contains(err.Error(), "bytes and string") {
		t.Errorf("got %v", err)
	}
}

// TestOwnSchemas: the system's own records and the samples pass the check.
func TestOwnSchemas(t *testing.T) {
	files, err := filepath.Glob("../*.avsc")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := CheckTexts(FullTransitive, string(text), []string{string(text)}); err != nil || len(found) > 0 {
			t.Errorf("%s: %v, %v", file, found, err)
		}
	}
}
