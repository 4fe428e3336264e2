// Package compat says whether a new version of a schema may follow the older
// ones, and whether a schema means one thing when written as plain JSON.
//
//	         versions, oldest first           next
//	v1 ───── v2 ───── v3 ─────────────────────▶ ?
//	│                  │  BACKWARD: next reads v3; FORWARD: v3 reads next;
//	│                  │  FULL: both
//	└──────────────────┴─ …_TRANSITIVE: the same for every version
//
// The rules are those of "Schema Resolution" in the Avro 1.12 specification
// and the seven levels are those of the Confluent schema registry. The package
// reads no files and calls nobody; all of it is safe for concurrent use.
package compat

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/avro"
)

// Level is a compatibility level of the Confluent schema registry.
type Level string

// The seven levels. DESIGN 3.3: a subject is created with FullTransitive.
const (
	None               Level = "NONE"
	Backward           Level = "BACKWARD"
	BackwardTransitive Level = "BACKWARD_TRANSITIVE"
	Forward            Level = "FORWARD"
	ForwardTransitive  Level = "FORWARD_TRANSITIVE"
	Full               Level = "FULL"
	FullTransitive     Level = "FULL_TRANSITIVE"
)

// Levels lists all levels, weakest first.
func Levels() []Level {
	return []Level{None, Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive}
}

// ParseLevel reads a level in any letter case; "-" may stand for "_". The
// error lists the levels there are.
func ParseLevel(s string) (Level, error) {
	want := Level(strings.ReplaceAll(strings.ToUpper(strings.TrimSpace(s)), "-", "_"))
	names := make([]string, 0, 7)
	for _, l := range Levels() {
		if l == want {
			return l, nil
		}
		names = append(names, string(l))
	}
	return "", fmt.Errorf("compatibility level %q is none of %s", s, strings.Join(names, ", "))
}

func (l Level) backward() bool {
	return l != None && l != Forward && l != ForwardTransitive
}

func (l Level) forward() bool {
	return l != None && l != Backward && l != BackwardTransitive
}

func (l Level) transitive() bool {
	return l != None && l != Backward && l != Forward && l != Full
}

// Directions of an Incompatibility.
const (
	DirBackward = "backward" // next as the reader of what an older version wrote
	DirForward  = "forward"  // an older version as the reader of what next wrote
)

// Incompatibility is one reason why next may not follow a version.
type Incompatibility struct {
	Version   int    // index into the versions given to Check
	Direction string // DirBackward or DirForward
	Path      string // dotted path of the field; "(root)" for the schema itself; ".items" and ".values" for elements
	Reason    string // what is wrong there, for a person
}

// String is one line for a person; versions count from 1.
func (i Incompatibility) String() string {
	who := "the new schema cannot read what version %d wrote"
	if i.Direction == DirForward {
		who = "version %d cannot read what the new schema writes"
	}
	return fmt.Sprintf("%s: %s: "+who+": %s", i.Direction, i.Path, i.Version+1, i.Reason)
}

// Check compares next with versions (oldest first) at the given level and
// returns every version and direction that fails, each with the first path
// that does; nothing means compatible. A level that is not transitive looks at
// the newest version only. NONE and an empty history allow everything. A level
// that is none of the seven is taken as FULL_TRANSITIVE, the strictest.
func Check(level Level, next *avro.Schema, versions []*avro.Schema) []Incompatibility {
	var found []Incompatibility
	first := 0
	if !level.transitive() {
		first = max(0, len(versions)-1)
	}
	for i := first; i < len(versions); i++ {
		if level.backward() {
			found = appendFailure(found, i, DirBackward, avro.CheckCompatibility(versions[i], next))
		}
		if level.forward() {
			found = appendFailure(found, i, DirForward, avro.CheckCompatibility(next, versions[i]))
		}
	}
	return found
}

func appendFailure(to []Incompatibility, version int, direction string, err error) []Incompatibility {
	if err == nil {
		return to
	}
	bad := Incompatibility{Version: version, Direction: direction, Path: "(root)", Reason: err.Error()}
	var ce *avro.CompatibilityError
	if errors.As(err, &ce) {
		bad.Path, bad.Reason = ce.Path, reason(ce)
	}
	return append(to, bad)
}

// reason words what the library found, with both types where it knows them.
func reason(ce *avro.CompatibilityError) string {
	switch {
	case ce.ReaderType != "" && ce.WriterType != "":
		return fmt.Sprintf("%s (reader %s, writer %s)", ce.Detail, ce.ReaderType, ce.WriterType)
	case ce.ReaderType != "":
		return fmt.Sprintf("%s (reader %s)", ce.Detail, ce.ReaderType)
	}
	return ce.Detail
}
