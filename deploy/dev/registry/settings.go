package registry

import (
	"slices"
	"strings"

	"github.com/spillway/spillway/schemas/compat"
)

// The modes of the registry or of one subject.
const (
	modeReadWrite        = "READWRITE"
	modeReadOnly         = "READONLY"          // no registering, no deleting
	modeReadOnlyOverride = "READONLY_OVERRIDE" // global only in effect: same, whatever a subject's own mode
	modeImport           = "IMPORT"            // ids and versions are given by the client
)

var modes = []string{modeReadWrite, modeReadOnly, modeReadOnlyOverride, modeImport}

// Answers about settings. The API spells the level in two ways.
type (
	levelGot struct {
		Level compat.Level `json:"compatibilityLevel"`
	}
	levelPut struct {
		Level compat.Level `json:"compatibility"`
	}
	levelReset struct {
		Level compat.Level `json:"compatibility"`
		Same  compat.Level `json:"compatibilityLevel"`
	}
	modeIs struct {
		Mode string `json:"mode"`
	}
)

// getLevel tells the compatibility level, global or of a subject.
func (r *Registry) getLevel(q *request) (any, error) {
	name := q.arg(0)
	r.mu.RLock()
	defer r.mu.RUnlock()
	if sub := r.state.subjects[name]; name == "" || q.is("defaultToGlobal") || sub != nil && sub.level != "" {
		return levelGot{r.state.levelOf(name)}, nil
	}
	return nil, fail(codeNoSubjectConfig, "Subject '%s' does not have subject-level compatibility configured", name)
}

func (r *Registry) putLevel(q *request) (any, error) {
	var body struct {
		Level string `json:"compatibility"`
	}
	if err := q.decode(&body); err != nil {
		return nil, err
	}
	level, err := compat.ParseLevel(body.Level)
	if err != nil {
		return nil, fail(codeInvalidLevel, "Invalid compatibility level: %v", err)
	}
	if err := r.set(q, record{Op: opLevel, Level: string(level)}); err != nil {
		return nil, err
	}
	return levelPut{level}, nil
}

// resetLevel makes a subject follow the global level, or that the default. It
// tells the level there was.
func (r *Registry) resetLevel(q *request) (any, error) {
	old, err := r.getLevel(&request{args: q.args})
	if err != nil {
		return nil, err
	}
	if err := r.set(q, record{Op: opLevel}); err != nil {
		return nil, err
	}
	level := old.(levelGot).Level
	return levelReset{level, level}, nil
}

func (r *Registry) getMode(q *request) (any, error) {
	name := q.arg(0)
	r.mu.RLock()
	defer r.mu.RUnlock()
	if sub := r.state.subjects[name]; name != "" && !q.is("defaultToGlobal") {
		if sub == nil || sub.mode == "" {
			return nil, fail(codeNoSubjectMode, "Subject '%s' does not have subject-level mode configured", name)
		}
		return modeIs{sub.mode}, nil
	}
	return modeIs{r.state.modeOf(name)}, nil
}

func (r *Registry) putMode(q *request) (any, error) {
	var body modeIs
	if err := q.decode(&body); err != nil {
		return nil, err
	}
	body.Mode = strings.ToUpper(body.Mode)
	if !slices.Contains(modes, body.Mode) {
		return nil, fail(codeInvalidMode, "Invalid mode %q: want one of %s", body.Mode, strings.Join(modes, ", "))
	}
	if body.Mode == modeImport && !q.is("force") && r.holds(q.arg(0)) {
		return nil, fail(codeNotPermitted, "Cannot import since found existing subjects; force=true does it nevertheless")
	}
	if err := r.set(q, record{Op: opMode, Mode: body.Mode}); err != nil {
		return nil, err
	}
	return body, nil
}

// holds says whether the subject, or with "" any, has a version.
func (r *Registry) holds(name string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if name != "" {
		return len(r.state.subjects[name].live(false)) > 0
	}
	for _, sub := range r.state.subjects {
		if len(sub.live(false)) > 0 {
			return true
		}
	}
	return false
}

func (r *Registry) resetMode(q *request) (any, error) {
	old, err := r.getMode(&request{args: q.args})
	if err != nil {
		return nil, err
	}
	if err := r.set(q, record{Op: opMode}); err != nil {
		return nil, err
	}
	return old, nil
}

// set journals a setting of the subject in the path, or of all.
func (r *Registry) set(q *request, rec record) error {
	rec.Subject = q.arg(0)
	if len(q.args) > 0 {
		if err := checkSubject(rec.Subject); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.state.subjects) >= maxSubjects && r.state.subjects[rec.Subject] == nil {
		return fail(codeStore, "The registry is full: it holds %d subjects", maxSubjects)
	}
	return r.change(rec)
}
