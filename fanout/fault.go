package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/schemas"
)

// Why Kafka could not be read: metric labels.
const (
	topicGone      = "topic_gone"
	topicRecreated = "topic_recreated"
	offsetGone     = "offset_gone"
	recordsLost    = "records_lost"
	undecodable    = "undecodable"
	notAllowed     = "not_allowed"
	unreachable    = "unreachable"
)

var errRecreated = errors.New("it was deleted and made anew: what was not read of it is gone, and subscribers are told a gap")

func reasonOf(err error) string {
	switch lost := (*kgo.ErrDataLoss)(nil); {
	case errors.As(err, &lost):
		return recordsLost
	case errors.Is(err, errUndecodable):
		return undecodable
	case errors.Is(err, errRecreated):
		return topicRecreated
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		return topicGone
	case errors.Is(err, kerr.OffsetOutOfRange):
		return offsetGone
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.SaslAuthenticationFailed):
		return notAllowed
	}
	return unreachable
}

// A fault is how the newest contact with Kafka went. Its owner locks it.
type fault struct {
	ok   bool      // Kafka has answered once
	err  error     // newest failure, nil after a success
	at   time.Time // when
	said time.Time // when it was logged
	why  string    // with which reason
}

// sayAgain is how often a failure that lasts is logged again.
const sayAgain = time.Minute

// failureLasts is how long a failure that is not met again counts.
const failureLasts = 10 * time.Second

// failedFor is the pause after a poll that failed, mendFor that between attempts
// to bring a partition back that is not read by itself any more.
const (
	failedFor = 50 * time.Millisecond
	mendFor   = time.Second
)

// watchEvery is how often Kafka is asked when all is well.
const watchEvery = 5 * time.Second

// pollFor bounds a poll, so that a topic that is gone is asked for again.
const pollFor = time.Second

func (f *fault) over() { f.err, f.why = nil, "" }

// report remembers how the newest contact with Kafka went, and logs a failure
// when its reason changes, then once a minute.
func (s *source) report(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &s.fault
	if err == nil {
		f.ok = true
		f.over()
		return
	}
	now, why := s.now(), reasonOf(err)
	f.err, f.at = err, now
	s.m.failures.WithLabelValues(why).Inc()
	if why != f.why || now.Sub(f.said) >= sayAgain {
		f.why, f.said = why, now
		s.logger.Warn("cannot read Kafka; it is tried again", "reason", why, "err", err)
	}
}

// answered notes that Kafka can be reached, and which log the topic is now: the
// consumer needs long to see that it is another. What else is wrong stands.
func (s *source) answered(log topicID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log != (topicID{}) && s.log != log {
		s.lost = true
	}
	if s.fault.ok = true; s.fault.why == unreachable {
		s.fault.over()
	}
}

// failure is why reading does not work now, nil if it does.
func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := &s.fault; f.err != nil && s.now().Sub(f.at) < failureLasts {
		return fmt.Errorf("%s: %w", reasonOf(f.err), f.err)
	}
	if !s.fault.ok {
		return errors.New("Kafka has not answered yet")
	}
	return nil
}

// reading notes which topic it is that the consumer meets first: it keeps to it.
func (s *source) reading(ctx context.Context, id int32) (topicID, error) {
	log, err := s.reader.log(ctx, id)
	if err != nil {
		return log, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == (topicID{}) {
		s.log = log
	}
	return log, nil
}

// remake goes on in a topic that was deleted and made anew, as soon as it is
// there. It is read from its start; subscribers are told that what lies between
// is lost. While there is none, it says so.
func (s *source) remake(ctx context.Context) {
	s.mu.Lock()
	lost, had := s.lost, s.log
	s.mu.Unlock()
	if !lost {
		return
	}
	log, err := s.reader.logNow(ctx)
	if err != nil {
		s.report(err)
		return
	}
	s.mu.Lock()
	s.lost = false
	if log == had { // a hiccup: the consumer goes on by itself
		s.mu.Unlock()
		return
	}
	s.log = log
	s.cl.PurgeTopicsFromClient(s.topic)
	for _, p := range s.parts {
		s.again(p)
	}
	s.mu.Unlock()
	s.report(fmt.Errorf("topic %s (id %s, now %s): %w", s.topic, schemas.TopicID(had), schemas.TopicID(log), errRecreated))
}

// again reads a partition of the new topic from its start. One that is not read
// yet will be: open sees that the topic is another.
func (s *source) again(p *partition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.reading {
		return
	}
	p.tail.Break()
	p.next = 0
	s.consume(p.id, p.next)
}
