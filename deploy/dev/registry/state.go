package registry

import (
	"fmt"
	"slices"

	"github.com/twmb/avro"

	"github.com/spillway/spillway/schemas/compat"
)

// Bounds of a registry; what goes beyond is refused.
const (
	maxSchemas  = 100_000
	maxSubjects = 100_000
	maxVersions = 10_000 // of one subject
	maxID       = 1<<31 - 1
)

// reference names another subject's version whose types a schema uses.
type reference struct {
	Name    string `json:"name"`
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// stored is one schema. It never changes once it is in the state.
type stored struct {
	id   int
	text string
	refs []reference
	key  string // what makes it the same schema; see canonical
}

type version struct {
	number  int
	id      int
	deleted bool // softly: still found by those who ask for deleted ones
}

// subject is a name with versions, or with settings alone.
type subject struct {
	versions []version // rising numbers
	level    compat.Level
	mode     string
}

// state is all that the registry knows: the fold of its journal.
type state struct {
	schemas  map[int]*stored
	byKey    map[string]*stored
	subjects map[string]*subject
	level    compat.Level
	mode     string
	lastID   int // ids are never given twice

	parsed map[int]*avro.Schema // filled on demand; see Registry.parse
}

func newState() *state {
	return &state{
		schemas: make(map[int]*stored), byKey: make(map[string]*stored), subjects: make(map[string]*subject),
		level: defaultLevel, mode: modeReadWrite, parsed: make(map[int]*avro.Schema),
	}
}

// apply makes one change. An error means that the record does not fit what
// came before it, and that nothing was changed.
func (s *state) apply(r record) error {
	switch r.Op {
	case opRegister:
		return s.register(r)
	case opDelete, opErase:
		return s.remove(r)
	case opLevel:
		return s.setLevel(r)
	case opMode:
		return s.setMode(r)
	}
	return fmt.Errorf("unknown operation %q", r.Op)
}

func (s *state) register(r record) error {
	if r.Subject == "" || r.ID < 1 || r.ID > maxID || r.Version < 1 {
		return fmt.Errorf("register subject %q version %d id %d", r.Subject, r.Version, r.ID)
	}
	if old := s.subjects[r.Subject]; old != nil && old.find(r.Version) != nil {
		return fmt.Errorf("register %q: version %d is there", r.Subject, r.Version)
	}
	if s.schemas[r.ID] == nil {
		_, key, err := canonical(r.Schema, r.References)
		if err != nil {
			return fmt.Errorf("register %q: %w", r.Subject, err)
		}
		st := &stored{id: r.ID, text: r.Schema, refs: r.References, key: key}
		s.schemas[r.ID] = st
		if s.byKey[key] == nil { // else imported under a second id
			s.byKey[key] = st
		}
		s.lastID = max(s.lastID, r.ID)
	}
	sub := s.subject(r.Subject)
	if r.Level != "" {
		sub.level = compat.Level(r.Level)
	}
	sub.versions = append(sub.versions, version{number: r.Version, id: r.ID})
	slices.SortFunc(sub.versions, func(a, b version) int { return a.number - b.number })
	return nil
}

func (s *state) remove(r record) error {
	sub := s.subjects[r.Subject]
	if sub == nil || len(r.Versions) == 0 {
		return fmt.Errorf("%s %q versions %v: not there", r.Op, r.Subject, r.Versions)
	}
	for _, n := range r.Versions {
		if sub.find(n) == nil {
			return fmt.Errorf("%s %q: version %d is not there", r.Op, r.Subject, n)
		}
	}
	for _, n := range r.Versions {
		sub.find(n).deleted = true
	}
	if r.Op == opErase {
		sub.versions = slices.DeleteFunc(sub.versions, func(v version) bool { return slices.Contains(r.Versions, v.number) })
		if len(sub.versions) == 0 { // its settings go with it
			sub.level, sub.mode = "", ""
		}
		s.sweep()
	}
	return nil
}

// sweep drops schemas that no version uses, deleted ones included, and
// subjects that are nothing any more.
func (s *state) sweep() {
	used := make(map[int]bool, len(s.schemas))
	for name, sub := range s.subjects {
		for _, v := range sub.versions {
			used[v.id] = true
		}
		if len(sub.versions) == 0 && sub.level == "" && sub.mode == "" {
			delete(s.subjects, name)
		}
	}
	clear(s.byKey)
	for id, st := range s.schemas {
		if !used[id] {
			delete(s.schemas, id)
			delete(s.parsed, id)
		} else if other := s.byKey[st.key]; other == nil || other.id > id {
			s.byKey[st.key] = st
		}
	}
}

func (s *state) setLevel(r record) error {
	if r.Level != "" {
		if _, err := compat.ParseLevel(r.Level); err != nil {
			return err
		}
	}
	if r.Subject != "" {
		s.subject(r.Subject).level = compat.Level(r.Level)
		s.sweep()
		return nil
	}
	if s.level = compat.Level(r.Level); r.Level == "" {
		s.level = defaultLevel
	}
	return nil
}

func (s *state) setMode(r record) error {
	if r.Mode != "" && !slices.Contains(modes, r.Mode) {
		return fmt.Errorf("unknown mode %q", r.Mode)
	}
	if r.Subject != "" {
		s.subject(r.Subject).mode = r.Mode
		s.sweep()
		return nil
	}
	if s.mode = r.Mode; r.Mode == "" {
		s.mode = modeReadWrite
	}
	return nil
}

// subject returns the subject, made if absent.
func (s *state) subject(name string) *subject {
	sub := s.subjects[name]
	if sub == nil {
		sub = &subject{}
		s.subjects[name] = sub
	}
	return sub
}

// find returns the version with that number, deleted or not, or nil.
func (s *subject) find(number int) *version {
	i, ok := slices.BinarySearchFunc(s.versions, number, func(v version, n int) int { return v.number - n })
	if !ok {
		return nil
	}
	return &s.versions[i]
}

// live are the versions that are not deleted; with deleted, all of them.
func (s *subject) live(deleted bool) []version {
	if s == nil {
		return nil
	}
	var out []version
	for _, v := range s.versions {
		if deleted || !v.deleted {
			out = append(out, v)
		}
	}
	return out
}

// levelOf is the compatibility level in force for a subject.
func (s *state) levelOf(name string) compat.Level {
	if sub := s.subjects[name]; sub != nil && sub.level != "" {
		return sub.level
	}
	return s.level
}

// modeOf is the mode in force for a subject.
func (s *state) modeOf(name string) string {
	if sub := s.subjects[name]; sub != nil && sub.mode != "" && s.mode != modeReadOnlyOverride {
		return sub.mode
	}
	return s.mode
}
