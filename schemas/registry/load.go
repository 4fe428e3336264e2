package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

// Load makes every schema of the registry known and goes on until that is so,
// or until ctx ends: after a try that was not complete it pauses, 100 ms doubled
// to 5 s, and asks for what is missing. What is loaded is known at once. An id
// that is not loaded yet is unknown, never absent: see ByID. Metric
// spillway_registry_loaded is 1 once it has ended.
func (c *Client) Load(ctx context.Context) error {
	c.metrics.loaded.Set(0)
	began, pause := c.cfg.Now(), minBackoff
	w := c.walk(func(ss sr.SubjectSchema) { c.adopt(ss) })
	for tries := 1; ; tries++ {
		err := w.try(ctx)
		if err == nil {
			c.metrics.loaded.Set(1)
			c.log.Info("all schemas are loaded", "tries", tries, "after", c.cfg.Now().Sub(began))
			return nil
		}
		if tries == 1 && ctx.Err() == nil {
			c.log.Warn("not all schemas are loaded yet, they are asked for until they are", "err", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("load all schemas, %d tries: %w", tries, errors.Join(ctx.Err(), err))
		}
		pause = min(2*pause, maxBackoff)
	}
}

// Preload makes every schema of the registry known, with its subject, so that
// their ids are not asked one by one. It tries once and needs no rate: it is
// called rarely. Schemas that cannot be compiled are known as unsupported. The
// error wraps ErrUnavailable; what was loaded before it is known.
func (c *Client) Preload(ctx context.Context) error {
	if err := c.walk(func(ss sr.SubjectSchema) { c.adopt(ss) }).try(ctx); err != nil {
		return fmt.Errorf("load all schemas: %w", err)
	}
	return nil
}

// all lists every version of every subject.
func (c *Client) all(ctx context.Context) (all []sr.SubjectSchema, err error) {
	err = c.walk(func(ss sr.SubjectSchema) { all = append(all, ss) }).try(ctx)
	return all, err
}

// A walk goes through all schemas. Tried again, it leaves out the subjects that
// it has gone through.
type walk struct {
	c     *Client
	found func(sr.SubjectSchema) // called by one goroutine at a time

	bySubject bool // the registry does not give them in one answer

	mu     sync.Mutex
	read   map[string]bool // subjects: false could not be read; as many as one answer of the registry names
	failed int             // subjects in this try
	why    error           // of the first of them
}

// maxFailed subjects end a try: then it is the registry, and not a subject.
const maxFailed = 2 * maxAskers

func (c *Client) walk(found func(sr.SubjectSchema)) *walk {
	return &walk{c: c, found: found, read: map[string]bool{}}
}

// try asks for all schemas in one request, and subject by subject if that has
// no answer.
func (w *walk) try(ctx context.Context) error {
	if !w.bySubject {
		all, err := w.c.sr.AllSchemas(ctx)
		tooMuch := isTooMuch(err)
		if status := statusOf(err); status != 404 && status != 405 {
			if err = w.whole(all, err); err == nil || !tooMuch || ctx.Err() != nil {
				return err
			}
		}
	}
	subjects, err := w.c.sr.Subjects(ctx)
	if err = w.c.outcome(err); err != nil {
		return err
	}
	w.bySubject = true
	return w.each(ctx, subjects)
}

// isTooMuch: it may be the size of the answer that a registry, or a proxy in
// front of it, does not manage.
func isTooMuch(err error) bool {
	var f *Fault
	if !errors.As(err, &f) {
		return false
	}
	switch f.Reason {
	case timedOut, tooLarge, cutOff, serverError:
		return true
	}
	return false
}

// whole takes the answer that has everything. An entry that says no version is
// left out, and the answer is not complete.
func (w *walk) whole(all []sr.SubjectSchema, err error) error {
	for _, ss := range all {
		odd := w.c.aboutVersion(ss, nil)
		if odd == nil {
			w.found(ss)
		} else if err == nil {
			err = odd
		}
	}
	return w.c.outcome(err)
}

// each asks for the versions of subjects, a few at a time. A subject that was
// deleted meanwhile is none; one that cannot be read does not keep the others.
func (w *walk) each(ctx context.Context, subjects []string) error {
	left := w.left(subjects)
	w.failed, w.why = 0, nil
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	next := make(chan string)
	var askers sync.WaitGroup
	for range maxAskers {
		askers.Go(func() {
			for subject := range next {
				if w.one(ctx, subject) >= maxFailed {
					stop()
				}
			}
		})
	}
	for _, subject := range left {
		if ctx.Err() == nil {
			next <- subject
		}
	}
	close(next)
	askers.Wait()
	switch {
	case w.failed > 0:
		return fmt.Errorf("%d of %d subjects are not read: %w", len(w.left(subjects)), len(subjects), w.why)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	return nil
}

// left are the subjects still to be read, behind the others those that failed.
func (w *walk) left(subjects []string) []string {
	var first, last []string
	for _, subject := range subjects {
		switch read, tried := w.read[subject]; {
		case !tried:
			first = append(first, subject)
		case !read:
			last = append(last, subject)
		}
	}
	return append(first, last...)
}

// one asks for the versions of a subject and returns how many subjects have
// failed.
func (w *walk) one(ctx context.Context, subject string) (failed int) {
	versions, err := w.c.versions(ctx, subject)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ss := range versions {
		w.found(ss)
	}
	w.read[subject] = err == nil
	if err != nil {
		w.failed++
		if w.why == nil {
			w.why = err
		}
	}
	return w.failed
}

// statusOf is the HTTP status of a request that failed, or 0.
func statusOf(err error) int {
	var re *sr.ResponseError
	if errors.As(err, &re) {
		return re.StatusCode
	}
	var f *Fault
	if errors.As(err, &f) {
		return f.Status
	}
	return 0
}
