package ingest

import (
	"sync"
	"time"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// maxCounted bounds the tenants that are counted on one day; the others are
// left to the line.
const maxCounted = 100_000

// quotas counts a tenant's events of the UTC day that came through this node.
// It is advisory: other nodes count theirs, and the line decides by the log's
// clock. So it never refuses for the rate, and never too early.
type quotas struct {
	mu   sync.Mutex
	day  int64 // days since 1970
	used map[string]int64
}

const day = 24 * time.Hour

// take counts n events, or says when the tenant may send again.
func (q *quotas) take(tenant string, n, quota int64, now time.Time) *binding.Refusal {
	if quota <= 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if today := now.Unix() / int64(day/time.Second); today != q.day || q.used == nil {
		q.day, q.used = today, make(map[string]int64)
	}
	used, counted := q.used[tenant]
	switch {
	case used+n > quota:
		r := binding.Refuse(schemas.OverQuota, "", "tenant %s may send %d events a day (UTC), and %d came through this node", tenant, quota, used)
		r.RetryAfter = now.UTC().Truncate(day).Add(day).Sub(now)
		return r
	case counted || len(q.used) < maxCounted:
		q.used[tenant] = used + n
	}
	return nil
}

// give takes n events back that Kafka did not get.
func (q *quotas) give(tenant string, n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if used, ok := q.used[tenant]; ok {
		q.used[tenant] = max(0, used-n)
	}
}
