package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"github.com/twmb/avro"
)

const (
	maxSchemaBytes   = 1 << 20
	maxReferences    = 100
	maxReferenceTree = 1000 // schemas looked at to resolve one
)

// canonical returns a schema's text without white space, and a key that is
// equal for schemas which the Confluent registry takes for the same: spelling
// differs in white space, in the order of attributes, in how a name is
// qualified, in {"type":"string"} for "string"; and equal references.
// Documentation, defaults, aliases and other attributes make a difference.
func canonical(text string, refs []reference) (compact, key string, err error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", "", fmt.Errorf("schema is not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return "", "", errors.New("schema is not JSON: something follows its end")
	}
	var short, long bytes.Buffer
	if err := json.Compact(&short, []byte(text)); err != nil {
		return "", "", fmt.Errorf("schema is not JSON: %w", err)
	}
	if err := json.NewEncoder(&long).Encode([]any{canonType(v, ""), refs}); err != nil { // maps are written in key order
		return "", "", fmt.Errorf("schema: %w", err)
	}
	return short.String(), long.String(), nil
}

func canonType(v any, space string) any {
	switch v := v.(type) {
	case string:
		return qualify(v, space)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = canonType(v[i], space)
		}
		return out
	case map[string]any:
		return canonObject(v, space)
	}
	return v
}

func canonObject(v map[string]any, space string) any {
	out := maps.Clone(v)
	switch kind, _ := v["type"].(string); kind {
	case "record", "error", "enum", "fixed":
		name := fullName(v, space)
		space, _ = cutLast(name)
		out["name"] = name
		delete(out, "namespace")
		canonAliases(out, space)
		if fields, ok := v["fields"].([]any); ok {
			out["fields"] = canonFields(fields, space)
		}
	case "array":
		out["items"] = canonType(v["items"], space)
	case "map":
		out["values"] = canonType(v["values"], space)
	default:
		out["type"] = canonType(v["type"], space)
		if len(out) == 1 {
			return out["type"]
		}
	}
	return out
}

func canonFields(fields []any, space string) []any {
	out := make([]any, len(fields))
	for i, f := range fields {
		field, ok := f.(map[string]any)
		if !ok {
			out[i] = f
			continue
		}
		field = maps.Clone(field)
		field["type"] = canonType(field["type"], space)
		if field["order"] == "ascending" {
			delete(field, "order")
		}
		if aliases, ok := field["aliases"].([]any); ok && len(aliases) == 0 {
			delete(field, "aliases")
		}
		out[i] = field
	}
	return out
}

func canonAliases(v map[string]any, space string) {
	aliases, ok := v["aliases"].([]any)
	if !ok {
		return
	}
	if len(aliases) == 0 {
		delete(v, "aliases")
		return
	}
	v["aliases"] = canonType(aliases, space)
}

// fullName is a named type's name with its namespace.
func fullName(v map[string]any, space string) string {
	name, _ := v["name"].(string)
	if strings.Contains(name, ".") {
		return name
	}
	if own, ok := v["namespace"].(string); ok {
		space = own
	}
	if space == "" {
		return name
	}
	return space + "." + name
}

func qualify(name, space string) string {
	switch name {
	case "null", "boolean", "int", "long", "float", "double", "bytes", "string":
		return name
	}
	if space == "" || strings.Contains(name, ".") {
		return name
	}
	return space + "." + name
}

// cutLast splits a full name into namespace and name.
func cutLast(full string) (space, name string) {
	i := strings.LastIndexByte(full, '.')
	if i < 0 {
		return "", full
	}
	return full[:i], full[i+1:]
}

// guid is an identifier of a schema that depends on its content alone.
func guid(key string) string {
	h := sha256.Sum256([]byte(key))
	h[6], h[8] = h[6]&0x0f|0x80, h[8]&0x3f|0x80 // RFC 9562 version 8
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// parse compiles a schema with the types it references, in order of need.
func (s *state) parse(text string, refs []reference) (*avro.Schema, error) {
	var cache avro.SchemaCache
	left := maxReferenceTree
	if err := s.parseRefs(&cache, refs, &left); err != nil {
		return nil, err
	}
	return cache.Parse(text)
}

func (s *state) parseRefs(cache *avro.SchemaCache, refs []reference, left *int) error {
	for _, ref := range refs {
		if *left--; *left < 0 {
			return fmt.Errorf("more than %d schemas are referenced", maxReferenceTree)
		}
		st := s.referenced(ref)
		if st == nil {
			return fmt.Errorf("no schema reference found for subject %q and version %d", ref.Subject, ref.Version)
		}
		if err := s.parseRefs(cache, st.refs, left); err != nil {
			return err
		}
		if _, err := cache.Parse(st.text); err != nil {
			return fmt.Errorf("reference %q: %w", ref.Name, err)
		}
	}
	return nil
}

func (s *state) referenced(ref reference) *stored {
	sub := s.subjects[ref.Subject]
	if sub == nil {
		return nil
	}
	v := sub.find(ref.Version)
	if ref.Version == -1 {
		if all := sub.live(false); len(all) > 0 {
			v = &all[len(all)-1]
		}
	}
	if v == nil {
		return nil
	}
	return s.schemas[v.id]
}

// parsedByID is the compiled form of a stored schema. It fills a cache, so the
// caller holds the registry's lock for writing.
func (s *state) parsedByID(id int) (*avro.Schema, error) {
	if p := s.parsed[id]; p != nil {
		return p, nil
	}
	st := s.schemas[id]
	p, err := s.parse(st.text, st.refs)
	if err != nil {
		return nil, fmt.Errorf("schema %d: %w", id, err)
	}
	s.parsed[id] = p
	return p, nil
}
