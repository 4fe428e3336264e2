package binding

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spillway/spillway/schemas"
)

// A Refusal is why a request is not taken, and the cure. It is no error: it is
// the answer.
type Refusal struct {
	Code       schemas.Reason
	Message    string        // a sentence for a person
	Path       string        // attribute, or field inside data: "data.items[3].price"
	Fix        string        // what would make it right, "" if nothing is obvious
	Claim      string        // claim of the token that was missing or wrong
	Event      int           // index in a batch, -1 if the request is no batch
	RetryAfter time.Duration // > 0: when to try again; rounded up to seconds
}

// Refuse says no about path, which is "" if it is about the request.
func Refuse(code schemas.Reason, path, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Path: path, Message: fmt.Sprintf(format, args...), Event: -1}
}

// WithFix adds the cure.
func (r *Refusal) WithFix(format string, args ...any) *Refusal {
	r.Fix = fmt.Sprintf(format, args...)
	return r
}

// InEvent says which event of a batch it is about.
func (r *Refusal) InEvent(index int) *Refusal {
	r.Event = index
	return r
}

// AppendJSON appends the body of the answer:
// {"error":{"code","message","path","fix","claim","event"}}, what is not known
// left out; a line of its own, so that curl shows it well.
func (r *Refusal) AppendJSON(dst []byte) []byte {
	dst = schemas.AppendJSONString(append(dst, `{"error":{"code":`...), string(r.Code))
	dst = schemas.AppendJSONString(append(dst, `,"message":`...), r.Message)
	for _, m := range [...]struct{ name, value string }{{"path", r.Path}, {"fix", r.Fix}, {"claim", r.Claim}} {
		if m.value != "" {
			dst = append(append(append(dst, `,"`...), m.name...), `":`...)
			dst = schemas.AppendJSONString(dst, m.value)
		}
	}
	if r.Event >= 0 {
		dst = strconv.AppendInt(append(dst, `,"event":`...), int64(r.Event), 10)
	}
	return append(dst, "}}\n"...)
}

// Clip keeps messages short whatever a client sends.
func Clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
