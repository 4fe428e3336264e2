package explain

import (
	"fmt"
	"io"
	"strings"
)

// String is the story for a person.
func (s Story) String() string {
	var b strings.Builder
	s.write(&b)
	return b.String()
}

// WriteTo writes what String says.
func (s Story) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, s.String())
	return int64(n), err
}

func (s Story) write(b *strings.Builder) {
	for i, a := range s.Events {
		if i > 0 {
			b.WriteByte('\n')
		}
		a.write(b)
	}
	if s.More {
		fmt.Fprintf(b, "\nMore events have this id; name the tenant or an origin.\n")
	}
}

func (a *Account) write(b *strings.Builder) {
	tenant := a.Tenant
	if tenant == "" {
		tenant = "no tenant"
	}
	fmt.Fprintf(b, "event %s of %s: %s\n", printable(a.ID), printable(tenant), a.headline())
	for _, line := range []string{a.attributes(), a.origin()} {
		if line != "" {
			fmt.Fprintf(b, "  %s\n", line)
		}
	}
	for i, st := range a.Steps {
		when := st.At.Format("2006-01-02 15:04:05.000")
		if i > 0 {
			when = "+" + micros(st.AfterUS)
		}
		fmt.Fprintf(b, "  %23s  %-11s  %s%s\n", when, st.What, printable(st.Text), by(st.Node))
	}
	if a.Advice != "" {
		fmt.Fprintf(b, "  %s\n", "What to do: "+a.Advice+".")
	}
}

// headline is the end of the story first.
func (a *Account) headline() string {
	out := a.Status
	if a.Status == delivered {
		out = a.reached()
	}
	if a.Status == "unclaimed" {
		out = "let through, but no session has it"
	}
	if a.Status == "processing" && a.Steps[len(a.Steps)-1].Path == "fast" {
		out = "let through; no session has said yet that it has it"
	}
	if a.Status == "pending" && len(a.Steps) == 1 {
		out = "accepted, not decided yet"
	}
	if a.Reason != "" {
		out += " (" + string(a.Reason) + ")"
	}
	return out
}

// reached is who got it: those who were there, and those who came for it later.
func (a *Account) reached() string {
	sessions, last := map[string]int{}, map[string]int64{}
	for _, s := range a.Steps {
		sessions[s.What] += int(s.Sessions)
		last[s.What] = max(last[s.What], s.AfterUS)
	}
	there, later := plural(sessions[delivered], "session"), plural(sessions[fetched], "session")
	switch {
	case sessions[delivered] == 0 && sessions[fetched] == 0:
		return delivered // to a worker
	case sessions[delivered] == 0:
		return fmt.Sprintf("let through; %s came for it later, the last %s after it was accepted", later, micros(last[fetched]))
	case sessions[fetched] == 0:
		return fmt.Sprintf("delivered to %s, the last %s after it was accepted", there, micros(last[delivered]))
	}
	return fmt.Sprintf("delivered to %s, the last %s after it was accepted; %s came for it later", there, micros(last[delivered]), later)
}

func (a *Account) attributes() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+printable(value))
		}
	}
	add("type", a.Type)
	add("channel", a.Channel)
	add("source", a.Source)
	if a.SchemaID >= 0 {
		parts = append(parts, fmt.Sprintf("schema %d", a.SchemaID))
	}
	if a.Bytes > 0 {
		parts = append(parts, fmt.Sprintf("%d bytes", a.Bytes))
	}
	add("time", a.Time)
	add("trace", a.TraceID)
	return strings.Join(parts, ", ")
}

func (a *Account) origin() string {
	if a.Origin == a.ID {
		return ""
	}
	return "origin " + a.Origin
}

func by(node string) string {
	if node == "" {
		return ""
	}
	return " [" + printable(node) + "]"
}

// printable keeps control characters and broken UTF-8 of foreign texts off the
// terminal, and long ones short.
func printable(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
}
