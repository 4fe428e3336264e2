package registry

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/avro"

	"github.com/spillway/spillway/schemas/compat"
)

const typeAvro = "AVRO"

// schemaBody is what registering, looking up and checking take.
type schemaBody struct {
	Schema     string      `json:"schema"`
	Type       string      `json:"schemaType"`
	References []reference `json:"references"`
	ID         int         `json:"id"`      // only in mode IMPORT; 0 and -1: none
	Version    int         `json:"version"` // same
	Metadata   any         `json:"metadata"`
	RuleSet    any         `json:"ruleSet"`
}

// candidate is a schema that a client has sent: valid, not yet stored.
type candidate struct {
	text, key string
	refs      []reference
	parsed    *avro.Schema
}

// candidate reads and checks the body. It reads the state.
func (r *Registry) candidate(b *schemaBody) (*candidate, error) {
	if b.Type != "" && !strings.EqualFold(b.Type, typeAvro) {
		return nil, fail(codeInvalidSchema, "Schema type %s is not supported: this registry takes AVRO only", b.Type)
	}
	if b.RuleSet != nil {
		return nil, fail(codeInvalidRuleSet, "Rule sets are not supported by this registry")
	}
	if b.Metadata != nil {
		return nil, fail(codeInvalidSchema, "Schema metadata is not supported by this registry")
	}
	if len(b.Schema) > maxSchemaBytes {
		return nil, fail(codeSchemaTooLarge, "Schema of %d bytes is larger than %d", len(b.Schema), maxSchemaBytes)
	}
	if strings.TrimSpace(b.Schema) == "" {
		return nil, fail(codeInvalidSchema, "Empty schema")
	}
	if len(b.References) > maxReferences {
		return nil, fail(codeInvalidSchema, "%d references are more than %d", len(b.References), maxReferences)
	}
	refs, err := r.pin(b.References)
	if err != nil {
		return nil, err
	}
	text, key, err := canonical(b.Schema, refs)
	if err != nil {
		return nil, fail(codeInvalidSchema, "Invalid schema: %v", err)
	}
	parsed, err := r.state.parse(text, refs)
	if err != nil {
		return nil, fail(codeInvalidSchema, "Invalid schema %s: %v", text, err)
	}
	return &candidate{text: text, key: key, refs: refs, parsed: parsed}, nil
}

// pin gives references to the latest version (-1) that version's number.
func (r *Registry) pin(refs []reference) ([]reference, error) {
	var out []reference
	for _, ref := range refs {
		sub := r.state.subjects[ref.Subject]
		if all := sub.live(false); ref.Version == -1 && len(all) > 0 {
			ref.Version = all[len(all)-1].number
		}
		if sub == nil || sub.find(ref.Version) == nil {
			return nil, fail(codeInvalidSchema, "Invalid schema: no schema reference found for subject %q and version %d", ref.Subject, ref.Version)
		}
		out = append(out, ref)
	}
	return out, nil
}

// checkSubject refuses names that no registry should hold.
func checkSubject(name string) error {
	bad := name == "" || len(name) > 512 || !utf8.ValidString(name) || strings.HasPrefix(name, ":.") ||
		name == "__GLOBAL" || name == "__EMPTY" || strings.ContainsFunc(name, unicode.IsControl)
	if bad {
		return fail(codeInvalidSubject, "The specified subject %q is not a valid subject: want 1 to 512 bytes of text, no control characters, no context", name)
	}
	return nil
}

// register adds a schema to a subject, or finds it there.
func (r *Registry) register(q *request) (any, error) {
	name := q.arg(0)
	var body schemaBody
	if err := q.decode(&body); err != nil {
		return nil, err
	}
	if err := checkSubject(name); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.candidate(&body)
	if err != nil {
		return nil, err
	}
	if v := r.has(name, c.key, false); v != nil && (body.ID <= 0 || body.ID == v.id) {
		return registered(r.state.schemas[v.id], v.number), nil // also in mode READONLY: nothing changes
	}
	rec, err := r.next(name, c, &body)
	if err != nil {
		return nil, err
	}
	if err := r.change(rec); err != nil {
		return nil, err
	}
	return registered(r.state.schemas[rec.ID], rec.Version), nil
}

// has returns the subject's version with that schema, or nil.
func (r *Registry) has(name, key string, deleted bool) *version {
	all := r.state.subjects[name].live(deleted)
	for i := len(all) - 1; i >= 0; i-- {
		if r.state.schemas[all[i].id].key == key {
			return &all[i]
		}
	}
	return nil
}

// next is the record that gives the subject its next version, if that may be.
func (r *Registry) next(name string, c *candidate, body *schemaBody) (record, error) {
	rec := record{Op: opRegister, Subject: name, Schema: c.text, References: c.refs}
	sub := r.state.subjects[name]
	if len(r.state.schemas) >= maxSchemas || len(r.state.subjects) >= maxSubjects || len(sub.live(true)) >= maxVersions {
		return rec, fail(codeStore, "The registry is full: it holds %d schemas in %d subjects", len(r.state.schemas), len(r.state.subjects))
	}
	switch mode := r.state.modeOf(name); {
	case mode == modeReadOnly || mode == modeReadOnlyOverride:
		return rec, fail(codeNotPermitted, "Subject %s is in read-only mode", name)
	case mode == modeImport:
		return r.imported(rec, c, body)
	case body.ID > 0 || body.Version > 0 && body.Version != sub.nextVersion():
		return rec, fail(codeNotPermitted, "Subject %s is not in import mode", name)
	}
	if err := r.compatible(name, c); err != nil {
		return rec, err
	}
	rec.Version = sub.nextVersion()
	rec.ID = r.idFor(c.key)
	if sub == nil || sub.level == "" && len(sub.versions) == 0 {
		rec.Level = string(r.state.level) // a new subject keeps the level it was made with
	}
	return rec, nil
}

// imported is the record of mode IMPORT: id and version may be given, and
// compatibility is not asked for.
func (r *Registry) imported(rec record, c *candidate, body *schemaBody) (record, error) {
	sub := r.state.subjects[rec.Subject]
	rec.ID, rec.Version = body.ID, body.Version
	if v := r.has(rec.Subject, c.key, false); v != nil {
		return rec, fail(codeIDDoesNotMatch, "Provided ID %d does not match the ID %d of the schema", body.ID, v.id)
	}
	if rec.ID > maxID {
		return rec, fail(codeNotPermitted, "The id %d is larger than %d", rec.ID, maxID)
	}
	if rec.ID <= 0 {
		rec.ID = r.idFor(c.key)
	}
	if st := r.state.schemas[rec.ID]; st != nil && st.key != c.key {
		return rec, fail(codeNotPermitted, "Overwrite new schema with id %d is not permitted.", rec.ID)
	}
	if rec.Version <= 0 {
		rec.Version = sub.nextVersion()
	}
	if sub != nil && sub.find(rec.Version) != nil {
		return rec, fail(codeNotPermitted, "Overwrite version %d of subject %s is not permitted.", rec.Version, rec.Subject)
	}
	return rec, nil
}

func (s *subject) nextVersion() int {
	all := s.live(true)
	if len(all) == 0 {
		return 1
	}
	return all[len(all)-1].number + 1
}

// idFor is the id of an equal schema in any subject, else a new one.
func (r *Registry) idFor(key string) int {
	if st := r.state.byKey[key]; st != nil {
		return st.id
	}
	return r.state.lastID + 1
}

// compatible asks whether the schema may become the subject's next version.
func (r *Registry) compatible(name string, c *candidate) error {
	level := r.state.levelOf(name)
	reasons, err := r.check(level, c, r.state.subjects[name].live(false))
	if err != nil || len(reasons) == 0 {
		return err
	}
	return fail(codeIncompatible, "Schema being registered is incompatible with an earlier schema for subject \"%s\", details: [%s], compatibility: %s",
		name, strings.Join(reasons, "; "), level)
}

// check compares a schema with versions and words each reason. It parses what
// was not parsed yet: the caller holds mu for writing.
func (r *Registry) check(level compat.Level, c *candidate, versions []version) ([]string, error) {
	if level == compat.None {
		return nil, nil
	}
	parsed := make([]*avro.Schema, len(versions))
	for i, v := range versions {
		p, err := r.state.parsedByID(v.id)
		if err != nil {
			return nil, fail(codeStore, "%v", err)
		}
		parsed[i] = p
	}
	var reasons []string
	for _, bad := range compat.Check(level, c.parsed, parsed) {
		bad.Version = versions[bad.Version].number - 1 // String counts from 1
		reasons = append(reasons, bad.String())
	}
	return reasons, nil
}

// lookUp finds a schema in a subject.
func (r *Registry) lookUp(q *request) (any, error) {
	var body schemaBody
	if err := q.decode(&body); err != nil {
		return nil, err
	}
	name, deleted := q.arg(0), q.is("deleted")
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.state.subjects[name].live(deleted)) == 0 {
		return nil, noSubject(name)
	}
	c, err := r.candidate(&body)
	if err != nil {
		return nil, err
	}
	v := r.has(name, c.key, deleted)
	if v == nil {
		return nil, noSchema()
	}
	return r.describe(name, *v), nil
}

// verdict answers the two compatibility checks.
type verdict struct {
	Is       bool     `json:"is_compatible"`
	Messages []string `json:"messages,omitempty"`
}

// checkVersion compares a schema with one version of a subject.
func (r *Registry) checkVersion(q *request) (any, error) {
	return r.test(q, func(sub *subject) ([]version, error) {
		v, err := pick(q.arg(0), q.arg(1), sub, false)
		if err != nil {
			if isLatest(q.arg(1)) {
				return nil, nil // nothing to be incompatible with
			}
			return nil, err
		}
		return []version{v}, nil
	})
}

// checkAll compares a schema with all versions that the level asks for.
func (r *Registry) checkAll(q *request) (any, error) {
	return r.test(q, func(sub *subject) ([]version, error) { return sub.live(false), nil })
}

func (r *Registry) test(q *request, against func(*subject) ([]version, error)) (any, error) {
	var body schemaBody
	if err := q.decode(&body); err != nil {
		return nil, err
	}
	r.mu.Lock() // check fills the cache of parsed schemas
	defer r.mu.Unlock()
	c, err := r.candidate(&body)
	if err != nil {
		return nil, err
	}
	versions, err := against(r.state.subjects[q.arg(0)])
	if err != nil {
		return nil, err
	}
	level := r.state.levelOf(q.arg(0))
	reasons, err := r.check(level, c, versions)
	if err != nil {
		return nil, err
	}
	out := verdict{Is: len(reasons) == 0}
	if q.is("verbose") && !out.Is {
		out.Messages = append(reasons, fmt.Sprintf("compatibility: %s", level))
	}
	return out, nil
}
