package control

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// What Kafka refuses is one line that names the topic and what to look at.
func TestSetupSaysWhatKafkaRefuses(t *testing.T) {
	for _, c := range []struct {
		err  *kerr.Error
		says string
		want string
	}{
		{kerr.InvalidReplicationFactor, "only 1 broker(s) are registered.", "--replication 1"},
		{kerr.PolicyViolation, "names begin with prod.", "create.topic.policy.class.name"},
		{kerr.TopicAuthorizationFailed, "", "ACL CREATE"},
		{kerr.ClusterAuthorizationFailed, "", "ACL CREATE"},
		{kerr.InvalidConfig, "retention.ms is too long", "settings"},
		{kerr.InvalidPartitions, "", "--partitions"},
		{kerr.ThrottlingQuotaExceeded, "", "THROTTLING_QUOTA_EXCEEDED"},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			broker, kafka := cluster(t)
			broker.ControlKey(int16(kmsg.CreateTopics), func(r kmsg.Request) (kmsg.Response, error, bool) {
				broker.KeepControl()
				req := r.(*kmsg.CreateTopicsRequest)
				resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
				for _, t := range req.Topics {
					no := kmsg.NewCreateTopicsResponseTopic()
					no.Topic, no.ErrorCode = t.Topic, c.err.Code
					if c.says != "" {
						no.ErrorMessage = kmsg.StringPtr(c.says)
					}
					resp.Topics = append(resp.Topics, no)
				}
				return resp, nil, true
			})
			_, err := Setup(t.Context(), SetupConfig{Kafka: kafka, Topics: topics, Partitions: 3, Regions: []string{"eu"}, Replication: 1, Logger: quiet()})
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range []string{topics.Events(), c.err.Message, c.says, c.want} {
				if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q does not say %q in one line", err, part)
				}
			}
		})
	}
}
