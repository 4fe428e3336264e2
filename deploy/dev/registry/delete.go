package registry

import "slices"

// deleteSubject deletes all versions of a subject: softly, or for good if they
// are deleted already and permanent is true.
func (r *Registry) deleteSubject(q *request) (any, error) {
	name, permanent := q.arg(0), q.is("permanent")
	r.mu.Lock()
	defer r.mu.Unlock()
	sub := r.state.subjects[name]
	all, live := sub.live(true), sub.live(false)
	switch {
	case len(all) == 0:
		return nil, noSubject(name)
	case permanent && len(live) > 0:
		return nil, fail(codeSubjectNotDeleted, "Subject '%s' was not deleted first before being permanently deleted", name)
	case !permanent && len(live) == 0:
		return nil, fail(codeSubjectSoftDeleted, "Subject '%s' was soft deleted. Set permanent=true to delete permanently", name)
	}
	if !permanent {
		all = live
	}
	numbers, err := r.drop(name, all, permanent)
	if err != nil {
		return nil, err
	}
	return numbers, nil
}

// deleteVersion does the same to one version.
func (r *Registry) deleteVersion(q *request) (any, error) {
	name, permanent := q.arg(0), q.is("permanent")
	r.mu.Lock()
	defer r.mu.Unlock()
	v, err := pick(name, q.arg(1), r.state.subjects[name], true)
	switch {
	case err != nil:
		return nil, err
	case permanent && !v.deleted:
		return nil, fail(codeVersionNotDeleted, "Subject '%s' Version %d was not deleted first before being permanently deleted", name, v.number)
	case !permanent && v.deleted:
		return nil, fail(codeVersionSoftDeleted, "Subject '%s' Version %d was soft deleted. Set permanent=true to delete permanently", name, v.number)
	}
	numbers, err := r.drop(name, []version{v}, permanent)
	if err != nil {
		return nil, err
	}
	return numbers[0], nil
}

// drop journals the deletion of versions, unless the mode or a reference
// forbids it.
func (r *Registry) drop(name string, versions []version, permanent bool) ([]int, error) {
	if mode := r.state.modeOf(name); mode == modeReadOnly || mode == modeReadOnlyOverride {
		return nil, fail(codeNotPermitted, "Subject %s is in read-only mode", name)
	}
	numbers := make([]int, len(versions))
	for i, v := range versions {
		if ids := r.state.referencing(name, v.number); len(ids) > 0 {
			return nil, fail(codeReferenceExists, "One or more references exist to the schema {subject=%s,version=%d}: schema ids %v", name, v.number, ids)
		}
		numbers[i] = v.number
	}
	rec := record{Op: opDelete, Subject: name, Versions: numbers}
	if permanent {
		rec.Op = opErase
	}
	return numbers, r.change(rec)
}

// referencing lists the ids of schemas, in versions that are not deleted, that
// reference one.
func (s *state) referencing(name string, number int) []int {
	ids := []int{}
	for _, sub := range s.subjects {
		for _, v := range sub.live(false) {
			refers := slices.ContainsFunc(s.schemas[v.id].refs, func(ref reference) bool {
				return ref.Subject == name && ref.Version == number
			})
			if refers && !slices.Contains(ids, v.id) {
				ids = append(ids, v.id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}
