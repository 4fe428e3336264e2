package compat

import (
	"fmt"

	"github.com/spillway/spillway/schemas/codec"
	"github.com/twmb/avro"
)

// Ambiguous says whether a union of the schema has two branches that accept
// the same plain JSON (DESIGN 3.3). The error is a *codec.Error of reason
// schema_unsupported with the union's path, the branches, such JSON, and the
// cure. A schema that the codec cannot compile is an error too.
func Ambiguous(schema *avro.Schema) error {
	c, err := codec.Compile(schema.String())
	if err != nil {
		return err
	}
	return c.Ambiguous()
}

// CheckTexts is all that `spillway schemas check` asks of one schema: that
// next can be compiled and is not ambiguous (the error), and that it may
// follow the versions, oldest first (the incompatibilities).
func CheckTexts(level Level, next string, versions []string) ([]Incompatibility, error) {
	compiled, err := codec.Compile(next)
	if err != nil {
		return nil, err
	}
	if err := compiled.Ambiguous(); err != nil {
		return nil, err
	}
	parsed, err := avro.Parse(next)
	if err != nil {
		return nil, err
	}
	older := make([]*avro.Schema, len(versions))
	for i, text := range versions {
		if older[i], err = avro.Parse(text); err != nil {
			return nil, fmt.Errorf("version %d: %w", i+1, err)
		}
	}
	return Check(level, parsed, older), nil
}
