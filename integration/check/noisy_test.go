package main

import "testing"

// bucket is when each of n events is due that come every 1/300 s, but for a
// stall before the second one, at 100 a second and a burst of 100.
func bucket(n int, stall float64) (accepted, due []float64) {
	at, tokens, last := 0.0, 100.0, 0.0
	for k := range n {
		if k == 1 {
			at += stall
		}
		tokens = min(100, tokens+100*(at-last))
		last = at
		tokens--
		accepted = append(accepted, at)
		due = append(due, at+max(0, -tokens/100))
		at += 1.0 / 300
	}
	return accepted, due
}

// TestLate: a stall while the bucket is full excuses what it spilt, and not one
// event more.
func TestLate(t *testing.T) {
	var c checker
	c.Noisy.Rate, c.Noisy.Burst = 100, 100
	for _, stall := range []float64{0, 0.005, 0.03, 0.5, 2} {
		accepted, due := bucket(3000, stall)
		if n := c.late(accepted, due); n != 0 {
			t.Errorf("after a stall of %v s %d are late, want none", stall, n)
		}
		for k := 1000; k < len(due); k++ {
			due[k] += 0.03 // three events later than its place
		}
		if n := c.late(accepted, due); n != 2000 {
			t.Errorf("after a stall of %v s %d are late, want the 2,000 that were moved", stall, n)
		}
	}
}
