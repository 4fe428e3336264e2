package explain

import (
	"unicode/utf8"

	"github.com/spillway/spillway/schemas"
)

// NameOf is the tenant and the id under which an event is recorded. Route
// writes them so in its transitions, and rows and stories must meet those: a key
// that is no legal tenant is none, and an id that is none is the origin's text.
func NameOf(ev *schemas.Event) (tenant, id string) {
	if schemas.ValidTenant(ev.Tenant) {
		tenant = ev.Tenant
	}
	if id = ev.IDText(); len(id) > schemas.MaxID || !utf8.ValidString(id) {
		id = ev.Origin.String()
	}
	return tenant, id
}
