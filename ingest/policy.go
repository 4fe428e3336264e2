package ingest

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/ingest/binding"
	"github.com/spillway/spillway/schemas"
)

// freshEnough: a snapshot this old may say that a tenant does not exist. With
// an older one the line is asked, which waits until it can know.
const freshEnough = 5 * time.Second

// policy is the tenant's, or why it may not send. nil and nil: not known here.
func (in *Ingest) policy(tenant string) (*schemas.Policy, *binding.Refusal) {
	p, known := in.cfg.Policies.Policy(tenant)
	switch {
	case known && p.State == "suspended":
		return nil, binding.Refuse(schemas.TenantSuspended, "", "tenant %s is suspended", tenant)
	case known:
		return p, nil
	case in.cfg.Now().Sub(in.cfg.Policies.FreshAt()) <= freshEnough:
		return nil, binding.Refuse(schemas.TenantUnknown, "", "tenant %s has no policy", tenant).WithFix("spillway apply -f FILE makes one")
	}
	return nil, nil
}

// countQuota counts the events of each tenant, all or none.
func (in *Ingest) countQuota(records []kgo.Record) *binding.Refusal {
	for i := 0; i < len(records); {
		tenant, n := sameTenant(records[i:])
		if p, known := in.cfg.Policies.Policy(tenant); known {
			if refused := in.quotas.take(tenant, int64(n), p.Quota, in.cfg.Now()); refused != nil {
				in.uncountQuota(records[:i])
				return refused
			}
		}
		i += n
	}
	return nil
}

func (in *Ingest) uncountQuota(records []kgo.Record) {
	for i := 0; i < len(records); {
		tenant, n := sameTenant(records[i:])
		in.quotas.give(tenant, int64(n))
		i += n
	}
}

// sameTenant is the tenant of the first record and how many of its follow.
func sameTenant(records []kgo.Record) (string, int) {
	n := 1
	for n < len(records) && string(records[n].Key) == string(records[0].Key) {
		n++
	}
	return string(records[0].Key), n
}
