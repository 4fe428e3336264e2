package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/compat"
	"github.com/twmb/franz-go/pkg/sr"
)

// ErrRefused: the registry answered that it does not take the schema
// (incompatible, or not valid); the text is its reason.
var ErrRefused = errors.New("the schema registry refuses it")

// IncompatibleError is what Register returns for a schema that may not follow
// the subject's versions.
type IncompatibleError struct {
	Subject string
	Level   compat.Level
	Found   []compat.Incompatibility
}

// Error lists every incompatibility, one a line.
func (e *IncompatibleError) Error() string {
	lines := []string{fmt.Sprintf("%s: not %s compatible", e.Subject, e.Level)}
	for _, f := range e.Found {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// List returns the newest version of every subject, by subject.
func (c *Client) List(ctx context.Context) ([]*Schema, error) {
	all, err := c.all(ctx)
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	slices.SortFunc(all, func(a, b sr.SubjectSchema) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(b.Version, a.Version))
	})
	all = slices.CompactFunc(all, func(a, b sr.SubjectSchema) bool { return a.Subject == b.Subject })
	out := make([]*Schema, 0, len(all))
	for _, ss := range all {
		out = append(out, c.adopt(ss))
	}
	return out, nil
}

// Level returns the compatibility level in force for a subject: its own, else
// the registry's; own says which.
func (c *Client) Level(ctx context.Context, subject string) (level compat.Level, own bool, err error) {
	result := c.sr.Compatibility(ctx, subject)[0]
	if own = result.Err == nil; !own && c.noLevel(result.Err) {
		result = c.sr.Compatibility(ctx)[0]
	}
	if err := c.outcome(result.Err); err != nil {
		return "", false, fmt.Errorf("compatibility of %s: %w", subject, err)
	}
	if level, err = compat.ParseLevel(result.Level.String()); err != nil {
		return "", false, fmt.Errorf("compatibility of %s: %w: %w", subject, ErrUnavailable, err)
	}
	return level, own, nil
}

// noLevel: the registry says that the subject has no level of its own, or that
// there is no such subject.
func (c *Client) noLevel(err error) bool {
	var re *sr.ResponseError
	if !errors.As(err, &re) || re.StatusCode != 404 || !isRegistry(re) {
		return false
	}
	c.metrics.requests.WithLabelValues("absent").Inc()
	return true
}

// Check says whether a schema text may be the next version of a subject: the
// error if it cannot be compiled or is ambiguous (*codec.Error) or the registry
// cannot be asked (ErrUnavailable), the incompatibilities if it may not follow
// the registered versions. level "" takes the one in force; a subject that does
// not exist yet has no versions to follow.
func (c *Client) Check(ctx context.Context, subject, text string, level compat.Level) ([]compat.Incompatibility, error) {
	_, found, err := c.check(ctx, subject, text, level)
	return found, err
}

func (c *Client) check(ctx context.Context, subject, text string, level compat.Level) (compat.Level, []compat.Incompatibility, error) {
	if _, err := compat.CheckTexts(compat.None, text, nil); err != nil {
		return level, nil, err
	}
	versions, err := c.versions(ctx, subject)
	if err != nil || len(versions) == 0 {
		return level, nil, err
	}
	if level == "" {
		if level, _, err = c.Level(ctx, subject); err != nil {
			return level, nil, err
		}
	}
	texts := make([]string, len(versions))
	for i, v := range versions {
		if v.Type != sr.TypeAvro || len(v.References) > 0 {
			return level, nil, unsupported(fmt.Sprintf("version %d of %s is not a schema of its own in Avro", v.Version, subject))
		}
		texts[i] = v.Schema.Schema
	}
	found, err := compat.CheckTexts(level, text, texts)
	for i := range found {
		found[i].Version = versions[found[i].Version].Version - 1 // as the registry counts
	}
	return level, found, err
}

// versions of a subject, oldest first, and as many as were read before an
// error; none if there is no such subject.
func (c *Client) versions(ctx context.Context, subject string) ([]sr.SubjectSchema, error) {
	numbers, err := c.sr.SubjectVersions(ctx, subject)
	if err = c.outcome(err); errors.Is(err, ErrAbsent) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("versions of %s: %w", subject, err)
	}
	slices.Sort(numbers)
	var out []sr.SubjectSchema
	for _, n := range numbers {
		ss, err := c.sr.SchemaByVersion(ctx, subject, n)
		if err = c.outcome(c.aboutVersion(ss, err)); errors.Is(err, ErrAbsent) {
			continue // deleted meanwhile
		} else if err != nil {
			return out, fmt.Errorf("version %d of %s: %w", n, subject, err)
		}
		out = append(out, ss)
	}
	return out, nil
}

// Register makes a schema text the next version of a subject; "" is the
// record's full name (RecordNameStrategy). If that creates the subject, its
// compatibility is set to level first, "" is FULL_TRANSITIVE (DESIGN 3.3); a
// subject that exists keeps its own. A text that is registered already gives
// the version it has. Errors: *codec.Error (not compiled, no record,
// ambiguous), *IncompatibleError, ErrRefused, ErrUnavailable.
func (c *Client) Register(ctx context.Context, subject, text string, level compat.Level) (*Schema, error) {
	name, err := recordName(text)
	if err != nil {
		return nil, err
	}
	subject = or(subject, name)
	have, err := c.versions(ctx, subject)
	if err != nil {
		return nil, err
	}
	if len(have) == 0 {
		return c.first(ctx, subject, text, or(level, compat.FullTransitive))
	}
	for _, v := range slices.Backward(have) {
		if sameSchema(v.Schema.Schema, text) {
			return c.adopt(v), nil // asking would make a new version of another spelling, in some registries
		}
	}
	level, found, err := c.check(ctx, subject, text, "")
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return nil, &IncompatibleError{Subject: subject, Level: level, Found: found}
	}
	return c.create(ctx, subject, text)
}

// first makes a subject: its level, then its first version. Crash between the
// two: the next one that registers finds no version, and sets the level again.
// Apicurio cannot set NONE, which is no rule, on what is not there yet; then it
// is set afterwards.
func (c *Client) first(ctx context.Context, subject, text string, level compat.Level) (*Schema, error) {
	err := c.setLevel(ctx, subject, level)
	if err != nil && !errors.Is(err, ErrAbsent) {
		return nil, err
	}
	s, failed := c.create(ctx, subject, text)
	if failed != nil || err == nil {
		return s, failed
	}
	if now, _, err := c.Level(ctx, subject); err == nil && now == level {
		return s, nil
	}
	return s, c.setLevel(ctx, subject, level)
}

func recordName(text string) (string, error) {
	compiled, err := codec.Compile(text)
	if err != nil {
		return "", err
	}
	if compiled.Name() == "" {
		return "", unsupported("the schema is not a record")
	}
	return compiled.Name(), compiled.Ambiguous()
}

// sameSchema compares texts without white space and order of keys.
func sameSchema(a, b string) bool {
	var left, right any
	return json.Unmarshal([]byte(a), &left) == nil && json.Unmarshal([]byte(b), &right) == nil && reflect.DeepEqual(left, right)
}

func (c *Client) setLevel(ctx context.Context, subject string, level compat.Level) error {
	var l sr.CompatibilityLevel
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("compatibility level %q: %w", level, err)
	}
	result := c.sr.SetCompatibility(ctx, sr.SetCompatibility{Level: l}, subject)[0]
	if err := c.outcome(result.Err); err != nil {
		return fmt.Errorf("set compatibility of %s: %w", subject, err)
	}
	return nil
}

func (c *Client) create(ctx context.Context, subject, text string) (*Schema, error) {
	schema := sr.Schema{Schema: text}
	id, err := c.sr.RegisterSchema(ctx, subject, schema, -1, -1)
	if err == nil && (id <= 0 || id > maxID) {
		err = c.odd("/subjects", "no id for what was registered")
	}
	if err = c.outcome(err); err != nil {
		return nil, fmt.Errorf("register %s: %w", subject, err)
	}
	got, err := c.sr.LookupSchema(ctx, subject, schema)
	if err = c.outcome(c.aboutVersion(got, err)); err != nil {
		return nil, fmt.Errorf("look up %s: %w", subject, err)
	}
	got.ID = id
	s := c.adopt(got)
	c.mu.Lock()
	delete(c.latest, s.Name) // the next question sees this version
	c.mu.Unlock()
	return s, nil
}

// Encode appends the wire format of plain JSON to dst, with the latest version
// of a record's schema. max bounds JSON and Avro body in bytes, see
// codec.AppendAvro. Errors: those of Latest, and *codec.Error.
func (c *Client) Encode(ctx context.Context, dst []byte, name string, text []byte, max int) ([]byte, error) {
	s, err := c.Latest(ctx, name)
	if err != nil {
		return dst, err
	}
	if s.Codec == nil {
		return dst, fmt.Errorf("schema of %q: %w", name, s.Unsupported)
	}
	out, err := s.Codec.AppendAvro(codec.AppendHeader(dst, s.ID), text, max)
	if err != nil {
		return dst, err
	}
	return out, nil
}
