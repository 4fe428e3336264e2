package processors

// Trace is Walk for a person who looks: it tells each step's answer on the way.
func (l Line) Trace(ev *Event, st *State, told func(step string, d Decision)) Decision {
	st.advance(ev.Appended)
	for i := range l {
		d := l[i].Do(ev, st)
		told(l[i].Name, d)
		if d.Verdict == Keep {
			continue
		}
		d.Step = l[i].Name
		st.note(ev, d.Verdict)
		return d
	}
	panic("processors: the last step kept an event; route must decide")
}
