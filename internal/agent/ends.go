package agent

import "sekisho/internal/event"

// Half of a flood of processes are their ends, and as a rule nobody asks for those:
// no rule does, and of remote-access tools only the ends are shipped and close a
// remote session. What nobody asks for is counted and goes no further.

// maxTools bounds the running tools that are remembered. Judgement: a terminal
// server has a few for each of its people. Over it every end is looked at.
const maxTools = 4096

// ends knows which ends somebody asks for. The pipeline owns it.
type ends struct {
	tools map[string]bool // entity ids of the remote-access tools that run
	all   bool            // some tool was not remembered
}

// wanted reports whether an event is to be judged.
func (a *Agent) wanted(e *event.Event) bool {
	p := e.Process
	return e.Action != event.ProcessEnded || p == nil || p.EntityID == "" || a.ends.all || a.ends.tools[p.EntityID] ||
		a.o.Tee != nil || a.rules.program.Asks(e)
}

// note takes down, of an event that was judged, whether its process is a tool that
// runs.
func (n *ends) note(e *event.Event) {
	p := e.Process
	switch {
	case p == nil || p.RemoteTool == nil || p.EntityID == "":
	case e.Action == event.ProcessEnded:
		delete(n.tools, p.EntityID)
	case e.Action == event.ProcessStarted && len(n.tools) >= maxTools:
		n.all = true
	case e.Action == event.ProcessStarted:
		n.tools[p.EntityID] = true
	}
}
