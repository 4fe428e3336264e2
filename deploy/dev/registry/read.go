package registry

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// registeredAs answers a registration.
type registeredAs struct {
	ID      int    `json:"id"`
	Version int    `json:"version"`
	GUID    string `json:"guid"`
	Schema  string `json:"schema"`
}

func registered(st *stored, number int) registeredAs {
	return registeredAs{ID: st.id, Version: number, GUID: guid(st.key), Schema: st.text}
}

// description is a schema as one subject's version. Avro is the type that goes
// without saying.
type description struct {
	Subject    string      `json:"subject"`
	Version    int         `json:"version"`
	ID         int         `json:"id"`
	GUID       string      `json:"guid"`
	References []reference `json:"references,omitempty"`
	Schema     string      `json:"schema"`
}

// content is a schema by itself.
type content struct {
	Schema     string      `json:"schema"`
	References []reference `json:"references,omitempty"`
	GUID       string      `json:"guid"`
	MaxID      int         `json:"maxId,omitempty"`
}

type subjectVersion struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// about greets a person.
type about struct {
	Registry      string   `json:"registry"`
	Compatibility string   `json:"compatibility"`
	Subjects      int      `json:"subjects"`
	Schemas       int      `json:"schemas"`
	Try           []string `json:"try"`
}

func (r *Registry) about(*request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	subjects := 0
	for _, sub := range r.state.subjects {
		if len(sub.live(false)) > 0 {
			subjects++
		}
	}
	return &about{
		Registry:      "Spillway's schema registry for development: Confluent's API, Avro only",
		Compatibility: string(r.state.level), Subjects: subjects, Schemas: len(r.state.schemas),
		Try: []string{"GET /subjects", "GET /schemas?latestOnly=true", "GET /subjects/{subject}/versions/latest", "GET /config"},
	}, nil
}

func (r *Registry) describe(name string, v version) description {
	st := r.state.schemas[v.id]
	return description{Subject: name, Version: v.number, ID: v.id, GUID: guid(st.key), References: st.refs, Schema: st.text}
}

// names lists the subjects that begin with prefix, sorted.
func (s *state) names(prefix string) []string {
	prefix = strings.TrimPrefix(prefix, ":*:") // all contexts: there is but one
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s.subjects)), func(n string) bool { return !strings.HasPrefix(n, prefix) })
}

// chosen are the versions that the request asks for: live ones, all with
// deleted, only the deleted ones with deletedOnly.
func (s *subject) chosen(q *request) []version {
	only := q.is("deletedOnly")
	all := s.live(only || q.is("deleted"))
	if only {
		all = slices.DeleteFunc(all, func(v version) bool { return !v.deleted })
	}
	return all
}

// page cuts a list to the request's offset and limit.
func page[T any](q *request, list []T) ([]T, error) {
	offset, err := q.number("offset", 0)
	if err != nil {
		return nil, err
	}
	limit, err := q.number("limit", -1)
	if err != nil {
		return nil, err
	}
	list = list[min(max(offset, 0), len(list)):]
	if limit >= 0 {
		list = list[:min(limit, len(list))]
	}
	return list, nil
}

func (r *Registry) listSubjects(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []string{}
	for _, name := range r.state.names(q.query.Get("subjectPrefix")) {
		sub := r.state.subjects[name]
		found := sub.chosen(q)
		if q.is("deletedOnly") && len(sub.live(false)) > 0 {
			continue // lives on in another version
		}
		if len(found) > 0 {
			out = append(out, name)
		}
	}
	return page(q, out)
}

func (r *Registry) listVersions(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	found := r.state.subjects[q.arg(0)].chosen(q)
	if len(found) == 0 {
		return nil, noSubject(q.arg(0))
	}
	out := make([]int, len(found))
	for i, v := range found {
		out[i] = v.number
	}
	return page(q, out)
}

func isLatest(v string) bool { return v == "latest" || v == "-1" }

// pick finds the version that a path names, latest included.
func pick(name, want string, sub *subject, deleted bool) (version, error) {
	number, err := strconv.ParseInt(want, 10, 32)
	if !isLatest(want) && (err != nil || number < 1) {
		return version{}, fail(codeInvalidVersion,
			"The specified version '%s' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\"", want)
	}
	all := sub.live(deleted)
	if len(all) == 0 {
		return version{}, noSubject(name)
	}
	if isLatest(want) {
		if live := sub.live(false); len(live) > 0 {
			all = live
		}
		return all[len(all)-1], nil
	}
	if v := sub.find(int(number)); v != nil && (deleted || !v.deleted) {
		return *v, nil
	}
	return version{}, noVersion(int(number))
}

func (r *Registry) getVersion(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v, err := pick(q.arg(0), q.arg(1), r.state.subjects[q.arg(0)], q.is("deleted"))
	if err != nil {
		return nil, err
	}
	return r.describe(q.arg(0), v), nil
}

func (r *Registry) getVersionText(q *request) (any, error) {
	d, err := r.getVersion(q)
	if err != nil {
		return nil, err
	}
	return raw(d.(description).Schema), nil
}

func (r *Registry) referencedBy(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	v, err := pick(q.arg(0), q.arg(1), r.state.subjects[q.arg(0)], true)
	if err != nil {
		return nil, err
	}
	return r.state.referencing(q.arg(0), v.number), nil
}

func (r *Registry) listSchemas(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := []description{}
	for _, name := range r.state.names(q.query.Get("subjectPrefix")) {
		found := r.state.subjects[name].chosen(q)
		if q.is("latestOnly") && len(found) > 1 {
			found = found[len(found)-1:]
		}
		for _, v := range found {
			out = append(out, r.describe(name, v))
		}
	}
	return page(q, out)
}

func (r *Registry) listTypes(*request) (any, error) { return []string{typeAvro}, nil }

func (r *Registry) listContexts(*request) (any, error) { return []string{"."}, nil }

// byID finds the schema that a path names.
func (r *Registry) byID(want string) (*stored, error) {
	id, err := strconv.Atoi(want)
	if err != nil {
		return nil, fail(codeNotFound, "HTTP 404 Not Found: %q is no schema id", want)
	}
	st := r.state.schemas[id]
	if st == nil {
		return nil, fail(codeSchemaNotFound, "Schema %d not found", id)
	}
	return st, nil
}

func (r *Registry) getSchema(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	st, err := r.byID(q.arg(0))
	if err != nil {
		return nil, err
	}
	out := content{Schema: st.text, References: st.refs, GUID: guid(st.key)}
	if q.is("fetchMaxId") {
		out.MaxID = r.state.lastID
	}
	return out, nil
}

func (r *Registry) getSchemaText(q *request) (any, error) {
	c, err := r.getSchema(q)
	if err != nil {
		return nil, err
	}
	return raw(c.(content).Schema), nil
}

// usedBy lists the versions with a schema, sorted.
func (r *Registry) usedBy(q *request) ([]subjectVersion, error) {
	st, err := r.byID(q.arg(0))
	if err != nil {
		return nil, err
	}
	out := []subjectVersion{}
	for _, name := range r.state.names("") {
		for _, v := range r.state.subjects[name].live(q.is("deleted")) {
			if v.id == st.id {
				out = append(out, subjectVersion{name, v.number})
			}
		}
	}
	return out, nil
}

func (r *Registry) schemaVersions(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out, err := r.usedBy(q)
	if err != nil {
		return nil, err
	}
	return page(q, out)
}

func (r *Registry) schemaSubjects(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	used, err := r.usedBy(q)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, u := range used {
		if len(out) == 0 || out[len(out)-1] != u.Subject {
			out = append(out, u.Subject)
		}
	}
	return page(q, out)
}

// idsWith lists the ids of the schema with a GUID: one, or more after imports.
func (r *Registry) idsWith(want string) []int {
	var ids []int
	for id, st := range r.state.schemas {
		if guid(st.key) == want {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (r *Registry) getByGUID(q *request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ids := r.idsWith(q.arg(0))
	if len(ids) == 0 {
		return nil, fail(codeSchemaNotFound, "Schema %s not found", q.arg(0))
	}
	st := r.state.schemas[ids[0]]
	return content{Schema: st.text, References: st.refs, GUID: q.arg(0)}, nil
}

func (r *Registry) idsOfGUID(q *request) (any, error) {
	type contextID struct {
		Context string `json:"context"`
		ID      int    `json:"id"`
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	ids := r.idsWith(q.arg(0))
	if len(ids) == 0 {
		return nil, fail(codeSchemaNotFound, "Schema %s not found", q.arg(0))
	}
	out := make([]contextID, len(ids))
	for i, id := range ids {
		out[i] = contextID{".", id}
	}
	return out, nil
}
