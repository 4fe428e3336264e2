package audit

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// kafkaReason is the metric label of an error in reading or committing.
func kafkaReason(err error) string {
	switch {
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		return "topic_gone"
	case errors.Is(err, kerr.OffsetOutOfRange):
		return "offset_gone"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed):
		return "not_allowed"
	}
	return "unreachable"
}
