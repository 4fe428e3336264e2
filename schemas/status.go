package schemas

// A Status is where an event stands (DESIGN section 3.4). The number is its
// rank: of one generation and attempt, the highest rank is the newest status.
type Status uint8

const (
	Pending    Status = 1 // accepted, waits
	Processing Status = 2 // let through (fast) or in a worker (slow)
	Failed     Status = 3 // an attempt failed; a retry follows
	Delivered  Status = 4 // a worker or a session has it
	DeadStatus Status = 5 // final: a dead letter
	Dup        Status = 6 // final: said of the repeat, never of the first
	Dropped    Status = 7 // final: not wanted late
	Cancelled  Status = 8 // final: withdrawn
)

var statusNames = [...]string{"", "pending", "processing", "failed", "delivered", "dead", "duplicate", "dropped", "cancelled"}

// String is the status in DESIGN's word; "" for a number that is none.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return ""
}

// A Class is the path an event asks for.
type Class uint8

const (
	NoClass Class = iota // the producer left it to the policy
	Fast
	SlowClass
)

// String is the class as written in ce_priority and in policies.
func (c Class) String() string {
	switch c {
	case Fast:
		return "fast"
	case SlowClass:
		return "slow"
	}
	return ""
}

// ParseClass reads "fast", "slow" or "".
func ParseClass(s string) (Class, bool) {
	switch s {
	case "":
		return NoClass, true
	case "fast":
		return Fast, true
	case "slow":
		return SlowClass, true
	}
	return NoClass, false
}
