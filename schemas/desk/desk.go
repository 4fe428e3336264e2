// Package desk is what people do with schemas: compare, register, list and
// infer them, and turn JSON into what any Kafka producer can send. It prints
// what a terminal shows; the work is in the packages beside it.
//
//	files ─▶ Desk ─▶ codec, compat, infer
//	          └────▶ registry (only where it must be asked)
package desk

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spillway/spillway/schemas"
	"github.com/spillway/spillway/schemas/codec"
	"github.com/spillway/spillway/schemas/compat"
	"github.com/spillway/spillway/schemas/infer"
	"github.com/spillway/spillway/schemas/registry"
)

// A Desk prints to Out, and opens the registry when it needs it.
type Desk struct {
	Out  io.Writer
	Open func(context.Context) (*registry.Client, error)
}

// A Question is whether a schema may follow others.
type Question struct {
	File    string   // the schema
	Against []string // files of earlier versions, oldest first; none: those in the registry
	Subject string   // in the registry; "" is the record's full name
	Level   string   // ""; the subject's, FULL_TRANSITIVE for files
}

// Check prints what is incompatible, one a line; then the error says so, too.
func (d Desk) Check(ctx context.Context, q Question) error {
	text, err := os.ReadFile(q.File)
	if err != nil {
		return err
	}
	var level compat.Level
	if q.Level != "" {
		if level, err = compat.ParseLevel(strings.ToUpper(q.Level)); err != nil {
			return err
		}
	}
	var found []compat.Incompatibility
	if len(q.Against) > 0 {
		found, err = checkFiles(string(text), q.Against, level)
	} else {
		found, err = d.ask(ctx, q.Subject, string(text), level)
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		fmt.Fprintln(d.Out, "compatible")
		return nil
	}
	for _, f := range found {
		fmt.Fprintln(d.Out, f)
	}
	return fmt.Errorf("%s is not compatible", q.File)
}

// checkFiles compares with versions in files.
func checkFiles(text string, files []string, level compat.Level) ([]compat.Incompatibility, error) {
	var versions []string
	for _, file := range files {
		v, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		versions = append(versions, string(v))
	}
	return compat.CheckTexts(cmp.Or(level, compat.FullTransitive), text, versions)
}

// ask has the registry compare.
func (d Desk) ask(ctx context.Context, subject, text string, level compat.Level) ([]compat.Incompatibility, error) {
	r, err := d.Open(ctx)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if subject == "" {
		compiled, err := codec.Compile(text)
		if err != nil {
			return nil, err
		}
		subject = compiled.Name()
	}
	return r.Check(ctx, subject, text, level)
}

// RegisterFile registers the schema in a file.
func (d Desk) RegisterFile(ctx context.Context, file, subject, level string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return d.register(ctx, subject, string(text), level)
}

func (d Desk) register(ctx context.Context, subject, text, level string) error {
	l, err := compat.ParseLevel(strings.ToUpper(level))
	if err != nil {
		return err
	}
	r, err := d.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	s, err := r.Register(ctx, subject, text, l)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.Out, "%s version %d, id %d\n", s.Subject, s.Version, s.ID)
	return err
}

// List prints the newest version of each subject.
func (d Desk) List(ctx context.Context) error {
	r, err := d.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	list, err := r.List(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SUBJECT\tVERSION\tID\tRECORD")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", s.Subject, s.Version, s.ID, s.Name)
	}
	return w.Flush()
}

// Infer makes a schema from JSON examples and prints it, or registers it.
func (d Desk) Infer(ctx context.Context, name string, in io.Reader, register bool) error {
	text, err := infer.Infer(name, in)
	if err != nil {
		return err
	}
	if register {
		return d.register(ctx, "", text, string(compat.FullTransitive))
	}
	_, err = fmt.Fprintln(d.Out, text)
	return err
}

// Encode writes JSON in the wire format, with the latest schema of a name.
func (d Desk) Encode(ctx context.Context, name string, in io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(in, schemas.MaxEvent+1))
	if err != nil {
		return err
	}
	r, err := d.Open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	wire, err := r.Encode(ctx, nil, name, text, schemas.MaxEvent)
	if err != nil {
		return err
	}
	_, err = d.Out.Write(wire)
	return err
}
