package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// diff says field by field how two values of one record differ:
//
//	~ tenant/acme fast.rate 100 → 2000
//	+ tenant/acme quota 5
//	- tenant/acme types[a.B].order strict
func diff(name string, before, after any) []string {
	was, now := fields(before), fields(after)
	paths := slices.Sorted(maps.Keys(was))
	for p := range now {
		if _, ok := was[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	var out []string
	for _, p := range paths {
		old, had := was[p]
		value, has := now[p]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("+ %s %s %s", name, p, value))
		case !has:
			out = append(out, fmt.Sprintf("- %s %s %s", name, p, old))
		case old != value:
			out = append(out, fmt.Sprintf("~ %s %s %s → %s", name, p, old, value))
		}
	}
	return out
}

// fields lists a value's fields as its JSON has them, by path. Lists of plain
// values are one field.
func fields(v any) map[string]string {
	text, err := json.Marshal(v)
	var tree any
	if err == nil {
		err = json.Unmarshal(text, &tree)
	}
	if err != nil {
		panic("control: a value that was checked has no JSON: " + err.Error())
	}
	out := map[string]string{}
	flatten(out, "", tree)
	return out
}

func flatten(out map[string]string, path string, v any) {
	object, ok := v.(map[string]any)
	if !ok {
		out[path] = plain(v)
		return
	}
	for name, value := range object {
		switch {
		case path == "":
			flatten(out, name, value)
		case path == "types" || path == "patch.types":
			flatten(out, path+"["+name+"]", value)
		default:
			flatten(out, path+"."+name, value)
		}
	}
}

func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	text, _ := json.Marshal(v) // it was read from JSON
	return string(text)
}
