package control

import (
	"errors"
	"fmt"
	"math"

	"github.com/spillway/spillway/schemas"
)

// sound reports why a value must not be used at all, whoever wrote it: what a
// follower refuses even from the topic. The writer's rules are stricter.
func sound(k key, value any) error {
	switch v := value.(type) {
	case Settings:
		if v.Partitions < 1 || v.Partitions > maxPartitions {
			return fmt.Errorf("partitions: %d is not in 1..%d", v.Partitions, maxPartitions)
		}
	case storedSecret:
		if len(v.Key) < 16 || v.Use != useReturn && v.Use != useDedupe {
			return errors.New("a secret has a use and 16 bytes at least")
		}
	case schemas.Policy:
		return soundPolicy(v)
	case schemas.Endpoint:
		if !finite(v.Capacity) || v.Timeout < 0 || v.MaxConcurrency < 0 {
			return errors.New("an endpoint's numbers are finite and not negative")
		}
	case Flag:
		return soundPolicy(v.Patch)
	}
	return nil
}

func soundPolicy(p schemas.Policy) error {
	for _, r := range [...]schemas.Rate{p.Fast, p.Slow} {
		if !finite(r.Rate) || r.Burst < 0 || r.MaxBacklog < 0 {
			return errors.New("a rate's numbers are finite and not negative")
		}
	}
	if p.Quota < 0 || p.MaxConnections < 0 {
		return errors.New("quota and max_connections are not negative")
	}
	return nil
}

// finite reports whether f is a number of 0 or more that ends.
func finite(f float64) bool { return f >= 0 && !math.IsInf(f, 1) }

// maxPartitions bounds P: more than any cluster has use for, and it bounds
// what a role allocates per partition.
const maxPartitions = 4096
