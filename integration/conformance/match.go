package conformance

import (
	"errors"
	"fmt"
	"maps"
	"strings"
)

var errAbsent = errors.New("it is absent")

// within says what of want is not in got.
func (v *values) within(want, got any) error {
	switch want := want.(type) {
	case map[string]any:
		return v.object(want, got)
	case []any:
		return v.list(want, got)
	case string:
		return v.text(want, got)
	}
	if want != got {
		return fmt.Errorf("want %v, got %v", want, got)
	}
	return nil
}

func (v *values) object(want map[string]any, got any) error {
	have, ok := got.(map[string]any)
	if !ok {
		return fmt.Errorf("%v is no object", got)
	}
	for k, w := range want {
		g, ok := have[k]
		err := errAbsent
		if ok {
			err = v.within(w, g)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
	}
	return nil
}

// list compares without order. The first fit is taken, so that what is wanted
// must not fit in two ways of which only one leaves room for the rest.
func (v *values) list(want []any, got any) error {
	left, ok := got.([]any)
	if !ok || len(left) != len(want) {
		return fmt.Errorf("want a list of %d, got %v", len(want), got)
	}
	left = append([]any(nil), left...)
	for _, w := range want {
		fits := -1
		for i, g := range left {
			before := maps.Clone(v.bound)
			if v.within(w, g) == nil {
				fits = i
				break
			}
			v.bound = before
		}
		if fits < 0 {
			return fmt.Errorf("%v is not in %v", w, got)
		}
		left = append(left[:fits], left[fits+1:]...)
	}
	return nil
}

func (v *values) text(want string, got any) error {
	if name, ok := strings.CutPrefix(want, mark); ok {
		return v.bind(name, got)
	}
	if want == "*" || want == got {
		return nil
	}
	// The text of a schema may be spelt in another way.
	have, ok := got.(string)
	var w, g any
	if ok && strings.ContainsAny(want[:min(1, len(want))], `{["`) && decode(want, &w) == nil && decode(have, &g) == nil {
		return same(w, g)
	}
	return fmt.Errorf("want %q, got %v", want, got)
}

func same(want, got any) error {
	v := values{}
	if err := v.within(want, got); err != nil {
		return err
	}
	return v.within(got, want)
}

// bind gives a name its value, or compares it with the one it has.
func (v *values) bind(name string, got any) error {
	if have, ok := v.bound[name]; ok {
		if have != got {
			return fmt.Errorf("want %s = %v, got %v", name, have, got)
		}
		return nil
	}
	switch got.(type) {
	case map[string]any, []any, nil:
		return fmt.Errorf("%s cannot be %v", name, got)
	}
	if strings.HasPrefix(name, "id") {
		for other, value := range v.bound {
			if value == got && strings.HasPrefix(other, "id") {
				return fmt.Errorf("%s is %v, as %s is", name, got, other)
			}
		}
	}
	v.bound[name] = got
	return nil
}
