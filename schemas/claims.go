package schemas

import "time"

// Roles a token may have (DESIGN section 6.4).
const (
	RoleClient   = "client"   // subscribes and publishes over WebSocket; the default
	RoleProducer = "producer" // POST /v1/events for its tenant
	RoleOperator = "operator" // all tenants: control, dead letters, replays
)

// Claims is what a verified token says. Who makes one has checked signature
// and times.
type Claims struct {
	Tenant    string   // "*" only for an operator
	Subject   string   // sub: who it is, for the audit
	Role      string   // RoleClient, RoleProducer or RoleOperator
	Channels  []string // patterns it may subscribe to
	Publish   []string // patterns it may publish to
	ExpiresAt time.Time
}

// MaySubscribe reports whether every channel that pattern names is allowed.
func (c *Claims) MaySubscribe(pattern string) bool { return anyCovers(c.Channels, pattern) }

// MayPublish reports whether channel is allowed to publish to. A producer may
// publish to every channel of its tenant.
func (c *Claims) MayPublish(channel string) bool {
	return c.Role == RoleProducer || c.Role == RoleOperator || anyCovers(c.Publish, channel)
}

func anyCovers(allowed []string, pattern string) bool {
	for _, a := range allowed {
		if Covers(a, pattern) {
			return true
		}
	}
	return false
}
