package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/spillway/spillway/processors"
	"github.com/spillway/spillway/schemas"
)

// Timing of DESIGN section 4, "Isolation".
const (
	sessionTimeout     = 6 * time.Second
	heartbeat          = 2 * time.Second
	transactionTimeout = 10 * time.Second
	rebalanceTimeout   = transactionTimeout + 2*time.Second // for members to end their transactions
	drainTimeout       = transactionTimeout + 5*time.Second // for the last End, once the router is told to stop
	endAlone           = time.Second                        // how long a transaction may end without the group changing meanwhile
	overdue            = 2 * transactionTimeout             // after it, an open transaction is a reason not to be ready
	idleTick           = time.Second                        // housekeeping while nothing comes
	rebuildLeast       = 100 * time.Millisecond
	rebuildMost        = 5 * time.Second
	againLeast         = 20 * time.Millisecond // after a batch that was taken back
	againMost          = 2 * time.Second
)

// A session is one member of the group: a transactional client and the states
// of the partitions that it owns.
type session struct {
	// Static after Router.Run has started it.
	r            *Router
	cfg          *Config
	number       int
	log          *slog.Logger
	metrics      *metrics
	line         processors.Line
	forwards     *forwards
	topic        schemas.TopicID
	name         string // metric label
	transitionID int32

	// Owned by run's goroutine.
	tenants      tenants
	schemas      known
	gts          *kgo.GroupTransactSession
	parts        map[int32]*partition
	ev           processors.Event
	out          output
	pending      pending
	proven       bool // the client has committed a transaction
	again        int  // batches taken back since the last commit
	counts       counts
	refusedParts map[int32]refusal
	tryAgain     time.Time        // when states that could not be read are read again; zero: there are none
	limit        int              // records of the next batch, at most cfg.MaxBatch
	tooLarge     map[placeOf]bool // events with a record that Kafka refused for its size
	epochs       map[int32]uint64
	fanouts      map[string]string // topic by region: as many as policies name
	cleaned      time.Time         // when states of lost partitions were last looked for
	observed     time.Time         // when the sizes of the states were last told

	// Hints of the client's callbacks.
	revoked atomic.Bool

	mu       sync.Mutex
	starts   map[int32]start   // assigned since the last poll
	metadata map[int32]string  // of the committed offsets, as fetched last
	held     map[int32]int64   // states in memory: offset that they reach to
	refusals map[int32]refusal // the same: those that must not be read
	gone     []int32           // given up since the last poll
	accepted map[int32]string  // a person wants them to go on in spite of a refusal for this reason; until something is committed
	anew     bool              // the client must be replaced, so that accepted partitions are assigned again

	client    atomic.Pointer[kgo.Client] // for ready
	problem   atomic.Pointer[string]     // why it cannot read
	begun     atomic.Int64               // when the open transaction began, Unix ms; 0: none is open
	unwritten atomic.Pointer[string]     // why its last transaction was taken back
	refusing  atomic.Pointer[[]Refused]  // which partitions it refuses, by number
}

type placeOf struct {
	partition int32
	offset    int64
}

func newSession(r *Router, number int) *session {
	s := &session{
		r: r, cfg: &r.cfg, number: number, metrics: r.metrics,
		log:          r.cfg.Logger.With("session", r.cfg.member(number)),
		tenants:      tenants{source: r.cfg.Tenants},
		schemas:      newKnown(r.cfg.Schemas),
		parts:        make(map[int32]*partition),
		starts:       make(map[int32]start),
		metadata:     make(map[int32]string),
		held:         make(map[int32]int64),
		accepted:     make(map[int32]string),
		refusedParts: make(map[int32]refusal),
		refusals:     make(map[int32]refusal),
		tooLarge:     make(map[placeOf]bool),
		epochs:       make(map[int32]uint64),
		fanouts:      make(map[string]string),
		name:         strconv.Itoa(number),
		transitionID: r.cfg.SchemaIDs[schemas.TransitionName],
	}
	return s
}

func (s *session) options() []kgo.Opt {
	return append(append([]kgo.Opt{}, s.cfg.Kafka...),
		kgo.ConsumerGroup(s.cfg.group()),
		kgo.InstanceID(s.cfg.member(s.number)),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(sessionTimeout), kgo.HeartbeatInterval(heartbeat), kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.ConsumeTopics(s.cfg.Topics.Events()),
		// A new group begins at the log start, and an offset out of range is an
		// error: the client's defaults skip or lose (notes section 9).
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.FetchMaxBytes(schemas.MaxRouteBatch), kgo.FetchMaxPartitionBytes(1<<20),
		kgo.FetchMaxWait(time.Second),
		kgo.MaxDecompressBatchBytes(schemas.MaxClientBatch),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(s.fetched), kgo.AdjustFetchOffsetsFn(s.assigned),
		kgo.OnPartitionsRevoked(s.lost),

		kgo.TransactionalID(s.cfg.member(s.number)),
		kgo.TransactionTimeout(transactionTimeout),
		// A transaction that begins while the last one's markers are still being
		// written is refused for a moment (KIP-890, CONCURRENT_TRANSACTIONS). The
		// client then waits for its back-off and for fresh metadata, by default
		// 250 ms and up to 5 s: a partition would stand still that long.
		kgo.RetryBackoffFn(retryAfter), kgo.MetadataMinAge(metadataMinAge),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(schemas.MaxRouteBatch),
		kgo.MaxBufferedRecords(1<<20), // one batch's outputs never wait for each other
	)
}

// metadataMinAge is how often metadata may be asked for.
const metadataMinAge = 50 * time.Millisecond

// retryAfter is how long the client waits after so many failures in a row: 10
// ms, twice as long each time, 1 s at most, less up to a fifth so that sessions
// do not come together.
func retryAfter(failures int) time.Duration {
	wait := min(10*time.Millisecond<<min(max(failures-1, 0), 7), time.Second)
	return wait - rand.N(wait/5)
}

// run decides until ctx ends.
func (s *session) run(ctx context.Context) error {
	pause := rebuildLeast
	for ctx.Err() == nil {
		gts, err := kgo.NewGroupTransactSession(s.options()...)
		if err != nil {
			return fmt.Errorf("route: session %s: %w", s.cfg.member(s.number), err)
		}
		s.gts = gts
		s.client.Store(gts.Client())
		s.proven, s.tryAgain = false, time.Time{}
		clear(s.refusedParts)
		s.forgetOpen()
		if err = s.takeOver(ctx); err == nil {
			err = s.loop(ctx)
		}
		s.client.Store(nil)
		gts.CloseAllowingRebalance()
		if ctx.Err() != nil {
			s.leave()
			return nil
		}
		why := err.Error()
		s.unwritten.Store(&why)
		s.metrics.rebuilds.Inc()
		s.log.Warn("the session is built anew", "err", err)
		if s.proven {
			pause = rebuildLeast
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, rebuildMost)
	}
	return nil
}

// forgetOpen drops the states whose transaction ended nobody knows how: they
// are restored.
func (s *session) forgetOpen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.starts)
	clear(s.refusals)
	maps.DeleteFunc(s.parts, func(_ int32, p *partition) bool { return p.open })
	s.noteHeld()
}

// takeOver ends the transaction that an earlier life of this session left open,
// before anything is read: Kafka tells no committed offset while it stands, and
// would take it back only when it times out, 10 to 20 s later.
func (s *session) takeOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	if _, _, err := s.gts.Client().ProducerID(ctx); err != nil {
		return fmt.Errorf("take over transactional id %s: %w", s.cfg.member(s.number), err)
	}
	return nil
}

// loop runs cycles until ctx ends (nil) or the client must be replaced.
func (s *session) loop(ctx context.Context) error {
	for {
		pollCtx, cancel := context.WithTimeout(ctx, idleTick)
		fetches := s.gts.PollRecords(pollCtx, s.limit)
		cancel()
		err := s.cycle(ctx, fetches)
		s.gts.AllowRebalance()
		if err != nil {
			return err
		}
		s.breathe(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if fetches.IsClientClosed() {
			return errors.New("its client was closed")
		}
	}
}

// leave takes the static member out of the group, so that its partitions need
// not wait for its session to time out. Its client is closed by now, else it
// would join again.
func (s *session) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), heartbeat)
	defer cancel()
	b := kadm.LeaveGroup(s.cfg.group()).InstanceIDs(s.cfg.member(s.number)).Reason("the router stops")
	if _, err := kadm.NewClient(s.forwards.client).LeaveGroup(ctx, b); err != nil {
		s.log.Info("could not leave the group, its session will time out", "err", err)
	}
}

// assigned is called before the client fetches newly assigned partitions, with
// the offsets that it will begin at. It runs on the client's goroutine, while
// the session goes on with its other partitions. A partition that must not be
// read is left out: an error would stop all.
func (s *session) assigned(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	events := s.cfg.Topics.Events()
	at := make(map[int32]int64)
	for p, o := range offsets[events] {
		at[p] = max(-1, o.EpochOffset().Offset)
	}
	refusals := s.check(ctx, at)
	starts, unknown := make(map[int32]start), make(map[int32]start)
	s.mu.Lock()
	for p, o := range at {
		if _, no := refusals[p]; no {
			continue
		}
		starts[p] = start{at: o, metadata: s.metadata[p]}
		if reached, ok := s.held[p]; !ok || reached != o {
			unknown[p] = starts[p]
		}
	}
	s.mu.Unlock()
	if len(unknown) > 0 {
		maps.Copy(refusals, s.restore(ctx, unknown))
		maps.Copy(starts, unknown)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, o := range at {
		why, no := refusals[p]
		switch {
		case !no:
			s.starts[p] = starts[p]
		case s.accepted[p] == why.reason:
			if why.goOn >= 0 {
				o = why.goOn
				offsets[events][p] = kgo.NewOffset().At(o)
			}
			s.starts[p] = start{at: o, state: processors.NewState(s.cfg.MaxKeys)}
			s.log.Warn("a refused partition goes on, as a person has accepted", "partition", p, "offset", o, "reason", why.reason)
		default:
			s.refusals[p] = why
			delete(offsets[events], p)
		}
	}
	s.log.Info("partitions are assigned", "partitions", slices.Sorted(maps.Keys(at)))
	return offsets, nil
}

// lost is called when partitions go to another session.
func (s *session) lost(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
	s.revoked.Store(true)
	if lost := partitions[s.cfg.Topics.Events()]; len(lost) > 0 {
		s.log.Info("partitions are given up", "partitions", lost)
		s.mu.Lock()
		s.gone = append(s.gone, lost...)
		s.mu.Unlock()
	}
}

func (s *session) say(problem string) { s.problem.Store(&problem) }

func (s *session) ready() error {
	if list := s.refusedNow(); len(list) > 0 {
		return fmt.Errorf("session %s: partition %d of %s is refused, %d in all: %s",
			s.cfg.member(s.number), list[0].Partition, s.cfg.Topics.Events(), len(list), list[0].Text)
	}
	for _, why := range []*atomic.Pointer[string]{&s.problem, &s.unwritten} {
		if p := why.Load(); p != nil {
			return fmt.Errorf("session %s: %s", s.cfg.member(s.number), *p)
		}
	}
	if began := s.begun.Load(); began > 0 {
		if open := s.cfg.Now().Sub(time.UnixMilli(began)); open > overdue {
			return fmt.Errorf("session %s: its transaction is open for %s", s.cfg.member(s.number), open.Round(time.Second))
		}
	}
	if c := s.client.Load(); c != nil {
		if _, generation := c.GroupMetadata(); generation >= 0 {
			return nil
		}
	}
	return errors.New("session " + s.cfg.member(s.number) + " is not in the group")
}
