package connect

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Need is something in Kafka and what must be allowed with it.
type Need struct {
	kind string // topic, group, transactional id
	name string
	ops  []kmsg.ACLOperation
}

// What roles do with topics.
const (
	Read            = kmsg.ACLOperationRead
	Write           = kmsg.ACLOperationWrite
	Describe        = kmsg.ACLOperationDescribe
	DescribeConfigs = kmsg.ACLOperationDescribeConfigs
	Create          = kmsg.ACLOperationCreate // named when something is missing, but not asked for: the cluster may allow it, too
)

// Topic needs a topic.
func Topic(name string, ops ...kmsg.ACLOperation) Need { return Need{"topic", name, ops} }

// Group needs to be a member of a consumer group.
func Group(name string) Need { return Need{"group", name, []kmsg.ACLOperation{Read}} }

// Transaction needs to write under a transactional id.
func Transaction(id string) Need {
	return Need{"transactional id", id, []kmsg.ACLOperation{Write}}
}

func (n Need) String() string {
	ops := make([]string, len(n.ops))
	for i, op := range n.ops {
		ops[i] = op.String()
	}
	return strings.Join(ops, " and ") + " on " + n.kind + " " + n.name
}

// lacks reports whether a set of allowed operations, as Kafka tells them, lacks
// one of those needed. A broker that does not tell says math.MinInt32.
func (n Need) lacks(allowed int32) bool {
	if allowed == math.MinInt32 {
		return false
	}
	return slices.ContainsFunc(n.ops, func(op kmsg.ACLOperation) bool { return op != Create && allowed&(1<<op) == 0 })
}

func names(needs []Need, kind string) (out []string) {
	for _, n := range needs {
		if n.kind == kind {
			out = append(out, n.name)
		}
	}
	return out
}

// denied returns the needs that Kafka does not grant, and the topics that are
// not there; what is not there counts as granted.
func denied(ctx context.Context, client *kgo.Client, needs []Need) (out []Need, missing []string, err error) {
	out, missing, err = deniedTopics(ctx, client, needs)
	if err != nil {
		return nil, nil, err
	}
	more, stop := context.WithTimeout(ctx, askTimeout)
	defer stop()
	answers := make(chan *Need)
	asked := 0
	for _, n := range needs {
		if ask := map[string]func(context.Context, *kgo.Client, string) error{"group": askGroup, "transactional id": askTransaction}[n.kind]; ask != nil {
			asked++
			go func() {
				if err := ask(more, client, n.name); forbidden(err) {
					answers <- &n
					return
				}
				answers <- nil // any other error is not about us: the role will meet it and say so
			}()
		}
	}
	for range asked {
		if n := <-answers; n != nil {
			out = append(out, *n)
		}
	}
	return out, missing, nil
}

// askTimeout bounds the questions that need not be answered: one broker of
// several may be away.
const askTimeout = 2 * time.Second

// deniedTopics also proves that Kafka can be asked at all, so it is called
// with no topics, too.
func deniedTopics(ctx context.Context, client *kgo.Client, needs []Need) (out []Need, missing []string, err error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // nil would be all
	req.IncludeTopicAuthorizedOperations = true
	asked := map[string]bool{}
	for _, name := range names(needs, "topic") {
		if asked[name] {
			continue
		}
		asked[name] = true
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	allowed := map[string]int32{}
	refused := map[string]bool{}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		allowed[*t.Topic] = t.AuthorizedOperations
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			if errors.Is(err, kerr.UnknownTopicOrPartition) {
				missing = append(missing, *t.Topic)
			}
			refused[*t.Topic] = errors.Is(err, kerr.TopicAuthorizationFailed)
			allowed[*t.Topic] = math.MinInt32 // not there, or without a leader: nothing is told
		}
	}
	for _, n := range needs {
		if a, told := allowed[n.name]; n.kind == "topic" && (refused[n.name] || told && n.lacks(a)) {
			out = append(out, n)
		}
	}
	return out, missing, everyBroker(ctx, client, resp)
}

// maxAsked bounds how many brokers are greeted.
const maxAsked = 32

// everyBroker greets the brokers under the addresses that Kafka tells clients:
// a certificate may be wrong for some. One that is merely away is no error.
func everyBroker(ctx context.Context, client *kgo.Client, resp *kmsg.MetadataResponse) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	brokers := resp.Brokers[:min(len(resp.Brokers), maxAsked)]
	answers := make(chan error, len(brokers))
	for _, b := range brokers {
		go func() {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = []kmsg.MetadataRequestTopic{}
			_, err := client.Broker(int(b.NodeID)).Request(ctx, req)
			if err != nil {
				err = fmt.Errorf("broker %d at %s:%d: %w", b.NodeID, b.Host, b.Port, err)
			}
			answers <- err
		}()
	}
	var errs []error
	for range brokers {
		errs = append(errs, <-answers)
	}
	if slices.Contains(errs, nil) {
		errs = slices.DeleteFunc(errs, func(err error) bool { return err != nil && !refuses(err) })
	}
	return errors.Join(errs...)
}

// refuses reports whether an error is a broker's no, and not its absence.
func refuses(err error) bool {
	var cert *untrusted
	var answer *kerr.Error
	return errors.As(err, &cert) || errors.As(err, &answer)
}

func askGroup(ctx context.Context, client *kgo.Client, name string) error {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{name}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, g := range resp.Groups {
		if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}

func askTransaction(ctx context.Context, client *kgo.Client, id string) error {
	req := kmsg.NewPtrDescribeTransactionsRequest()
	req.TransactionalIDs = []string{id}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range resp.TransactionStates {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	return nil
}
