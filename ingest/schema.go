package ingest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/registry"
)

// Schemas finds schemas; registry.Client does. Errors wrap
// registry.ErrAbsent or registry.ErrUnavailable. What is known is answered at
// once; else it waits for the registry or for ctx.
type Schemas interface {
	// Latest is the newest version of the type name, some seconds old at most.
	Latest(ctx context.Context, name string) (*registry.Schema, error)
	// LatestNow is the same, a second old at most.
	LatestNow(ctx context.Context, name string) (*registry.Schema, error)
	// Resolve is the schema with this id.
	Resolve(ctx context.Context, id int) (*registry.Schema, error)
}

// registryWait bounds how long a request waits for the registry.
const registryWait = 3 * time.Second

// find asks for a schema, and says no in the words of an answer.
func find(ctx context.Context, what, path string, ask func(context.Context) (*registry.Schema, error)) (*registry.Schema, *binding.Refusal) {
	ctx, cancel := context.WithTimeout(ctx, registryWait)
	defer cancel()
	s, err := ask(ctx)
	switch {
	case errors.Is(err, registry.ErrAbsent):
		return nil, binding.Refuse(schemas.SchemaUnknown, path, "the registry has no schema for %s", what)
	case err != nil:
		return nil, unavailable(schemas.RegistryDown, 5*time.Second, "the schema for %s is not known here, and the registry does not answer", what)
	case s.Codec == nil:
		r := binding.Refuse(schemas.SchemaUnsupported, path, "the schema for %s cannot be used", what)
		var e *codec.Error
		if errors.As(s.Unsupported, &e) {
			r.Message, r.Fix = r.Message+": "+e.Message, e.Fix
		}
		return nil, r
	}
	return s, nil
}

// latest is the newest version of a type; the one that the request used last
// is kept at hand.
func (b *builder) latest(name string) (*registry.Schema, *binding.Refusal) {
	if b.lastType == name {
		return b.lastSchema, nil
	}
	s, refused := find(b.ctx, "type "+binding.Clip(name), "type", func(ctx context.Context) (*registry.Schema, error) {
		return b.in.cfg.Schemas.Latest(ctx, name)
	})
	if refused != nil {
		if refused.Code == schemas.SchemaUnknown {
			refused.WithFix("spillway schemas infer %s FILE --register makes one from examples", binding.Clip(name))
		}
		return nil, refused
	}
	b.lastType, b.lastSchema = strings.Clone(name), s
	return s, nil
}

// byDataSchema is the version that dataschema insists on: a schema id, or a
// URI that ends in /schemas/ids/ID as the registry itself serves it.
func (b *builder) byDataSchema(text string) (*registry.Schema, *binding.Refusal) {
	number := text
	if i := strings.LastIndex(text, "/schemas/ids/"); i >= 0 {
		number = text[i+len("/schemas/ids/"):]
	}
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil || id == 0 {
		return nil, binding.Refuse(schemas.SchemaUnknown, "dataschema", "dataschema %q names no schema of the registry", binding.Clip(text)).
			WithFix(`write its id, "7", or a URI that ends in /schemas/ids/7; or leave it out for the latest version`)
	}
	return b.byID(int(id), "dataschema")
}

func (b *builder) byID(id int, path string) (*registry.Schema, *binding.Refusal) {
	if b.lastID != nil && b.lastID.ID == id {
		return b.lastID, nil
	}
	s, refused := find(b.ctx, "id "+strconv.Itoa(id), path, func(ctx context.Context) (*registry.Schema, error) {
		return b.in.cfg.Schemas.Resolve(ctx, id)
	})
	if refused == nil {
		b.lastID = s
	}
	return s, refused
}

// checkedJSON is the size of Avro from which its JSON is measured too: JSON
// that went in small cannot come out over the bound below it.
const checkedJSON = 64 << 10

// encode appends d's payload in the wire format to b.slab and returns the
// schema's full name. Avro and JSON both stay within max_event.
func (b *builder) encode(d *binding.Draft) (name string, refused *binding.Refusal) {
	switch {
	case len(d.Data) == 0:
		return "", binding.Refuse(schemas.ValueEmpty, "data", "the event has no data").WithFix("an event without content still has its schema's record: {}")
	case d.Avro:
		return b.copyAvro(d)
	case len(d.Data) > schemas.MaxEvent:
		return "", binding.Refuse(schemas.TooLarge, "data", "data has %d bytes, at most %d are taken", len(d.Data), schemas.MaxEvent)
	}
	s, refused := b.schemaOf(d)
	if refused != nil {
		return "", refused
	}
	if refused := b.appendAvro(s, d.Data); refused != nil {
		if s, refused = b.newer(d, s, refused); refused != nil {
			return "", refused
		}
		if refused = b.appendAvro(s, d.Data); refused != nil {
			return "", refused
		}
	}
	return s.Name, nil
}

// schemaOf is the schema that JSON data is written with.
func (b *builder) schemaOf(d *binding.Draft) (*registry.Schema, *binding.Refusal) {
	name := d.Attributes[binding.Type]
	if !d.Has(binding.DataSchema) {
		if name == "" {
			return nil, binding.Refuse(schemas.AttributeInvalid, "type", "the event has no type, which names its schema").WithFix("add it: …/v1/events?type=demo.Message")
		}
		return b.latest(name)
	}
	s, refused := b.byDataSchema(d.Attributes[binding.DataSchema])
	if refused == nil && name != "" && name != s.Name {
		refused = otherType(name, s)
	}
	return s, refused
}

func otherType(name string, s *registry.Schema) *binding.Refusal {
	return binding.Refuse(schemas.SchemaMismatch, "type", "type is %s, but schema %d is of type %s", binding.Clip(name), s.ID, binding.Clip(s.Name)).WithFix("leave type out")
}

// newer gives data that did not fit the latest version known here a second
// chance: a newer one may have been registered a moment ago.
func (b *builder) newer(d *binding.Draft, old *registry.Schema, refused *binding.Refusal) (*registry.Schema, *binding.Refusal) {
	if refused.Code != schemas.SchemaMismatch || d.Has(binding.DataSchema) {
		return nil, refused
	}
	ctx, cancel := context.WithTimeout(b.ctx, registryWait)
	defer cancel()
	s, err := b.in.cfg.Schemas.LatestNow(ctx, d.Attributes[binding.Type])
	if err != nil || s.Codec == nil || s.ID == old.ID {
		return nil, refused
	}
	b.lastSchema = s
	return s, nil
}

func (b *builder) appendAvro(s *registry.Schema, data []byte) *binding.Refusal {
	start := len(b.slab)
	b.slab = codec.AppendHeader(b.slab, s.ID)
	out, err := s.Codec.AppendAvro(b.slab, data, schemas.MaxEvent-codec.HeaderSize)
	if err == nil && len(out)-start > checkedJSON {
		err = b.checkAvro(s, out[start+codec.HeaderSize:])
	}
	if err != nil {
		b.slab = b.slab[:start]
		return fromCodec(err)
	}
	b.slab = out
	return nil
}

// copyAvro takes a value in the wire format as it is, once it has been read
// through.
func (b *builder) copyAvro(d *binding.Draft) (name string, refused *binding.Refusal) {
	if len(d.Data) > schemas.MaxEvent {
		return "", binding.Refuse(schemas.TooLarge, "data", "data has %d bytes, at most %d are taken", len(d.Data), schemas.MaxEvent)
	}
	id, body, err := codec.ParseHeader(d.Data)
	if err != nil {
		return "", fromCodec(err)
	}
	s, refused := b.byID(id, "data")
	if refused != nil {
		return "", refused
	}
	if d.Has(binding.DataSchema) {
		insisted, refused := b.byDataSchema(d.Attributes[binding.DataSchema])
		if refused != nil {
			return "", refused
		}
		if insisted.ID != id {
			return "", binding.Refuse(schemas.SchemaMismatch, "dataschema", "dataschema is schema %d, data is written with %d", insisted.ID, id).WithFix("leave dataschema out")
		}
	}
	if name := d.Attributes[binding.Type]; name != "" && name != s.Name {
		return "", otherType(name, s)
	}
	if err := b.checkAvro(s, body); err != nil {
		return "", fromCodec(err)
	}
	b.slab = append(b.slab, d.Data...)
	return s.Name, nil
}

// checkAvro reads a body through and holds its JSON to max_event.
func (b *builder) checkAvro(s *registry.Schema, body []byte) error {
	scratch := buffers.get()
	defer buffers.put(scratch)
	var err error
	scratch.b, err = s.Codec.AppendJSON(scratch.b[:0], body, schemas.MaxEvent)
	return err
}
