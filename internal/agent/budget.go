package agent

import (
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"

	"sekisho/internal/config"
	"sekisho/internal/endpoint"
	"sekisho/internal/event"
)

// The agent takes no more of a PC than limits.cpu and limits.memory allow. Where
// there is more to do, it does less, in this order: it judges no more reads, then
// no more plain writes and ends of processes, then, at twice the limit, it keeps no
// activity of files and processes that raised no alert. Starts of programs, copies, devices, sessions
// and what sensors say of themselves are always judged, and every alert is kept:
// a flood must be no way to pass unseen. What is shed is counted, told as
// events-lost and shown by status.

// thrift is how much is shed; each level sheds what those below it do, too.
type thrift int

const (
	shedNothing thrift = iota
	shedReads
	shedWrites
	shedActivity
)

// from is the share of the limit from which on a level is due. What was copied where
// is the last that anybody wants to miss.
func (t thrift) from() float64 {
	if t == shedActivity {
		return 2
	}
	return 1
}

// shedding are the levels' names in status.
var shedding = []string{"reads", "writes", "activity"}

// reading is what was measured over one period.
type reading struct {
	cpu            float64 // ours, percent of one core
	memory         int64   // ours, bytes
	cpuPressure    float64 // percent of the last 10 s in which something waited for a CPU; 0 where that is not told
	memoryPressure float64 // the same for memory
}

// Times and shares of the decision. Judgement.
const (
	// risesAfter periods in a row over the limit make the level rise: a start, a
	// reload or a checkpoint is no flood.
	risesAfter = 2
	// fallsBelow is the share of the limit below which it falls again, after
	// holdFirst; more each time it rises again soon, up to holdLast, or what is shed
	// would come and go with every look.
	fallsBelow = 0.7
	holdFirst  = 10 * time.Second
	holdLast   = 5 * time.Minute
	// Where others wait for the CPU that long, half of it is ours to take.
	pressed      = 40.0
	pressedShare = 0.5
	// The collector keeps the memory below its limit as long as it can; that it
	// cannot shows beyond this share.
	memorySlack = 1.25
	// tellShedEvery is how often the number of what is shed is told meanwhile.
	tellShedEvery = 30 * time.Second
)

// budget decides what is shed. The pipeline owns it; status reads what is locked.
type budget struct {
	measure func(pressure bool) reading
	cpu     float64 // limits, from the settings
	memory  int64

	level  thrift
	over   int           // periods in a row over the limit
	below  time.Time     // since when it is below; zero: it is not
	hold   time.Duration // how long it has to be
	fell   time.Time     // when the level last fell
	last   reading
	untold [4]uint64 // shed since it was last told, by the level that shed it
	told   time.Time

	mu sync.Mutex // guards all below
	is endpoint.Budget
}

func newBudget() *budget { return &budget{hold: holdFirst, measure: newMeter().read} }

// set takes the limits of the settings in force.
func (b *budget) set(l config.AgentLimits) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cpu, b.memory = float64(l.CPU), int64(l.Memory)
	b.is.CPULimit, b.is.MemoryLimit = l.CPU, int64(l.Memory)
}

// sheds reports whether an event is not judged, and counts it.
func (b *budget) sheds(e *event.Event) bool {
	if b.level == shedNothing {
		return false
	}
	switch e.Action {
	case event.FileRead:
		return b.shed(shedReads)
	case event.FileWritten, event.FileRenamed, event.FileDeleted, event.ProcessEnded:
		return b.shed(shedWrites)
	}
	return false
}

// shedsActivity reports whether activity that raised no alert is not kept, and
// counts it.
func (b *budget) shedsActivity(e *event.Event) bool {
	return b.level >= shedActivity && (e.File != nil || e.Process != nil) && b.shed(shedActivity)
}

// shed counts one of what a level sheds, if that level is in force.
func (b *budget) shed(at thrift) bool {
	if b.level < at {
		return false
	}
	b.untold[at]++
	return true
}

// look measures and decides. It returns the event that tells of what was shed, nil
// if there is none.
func (b *budget) look(now time.Time) *event.Event {
	r := b.measure(b.level > shedNothing || b.last.cpu > b.cpu*pressedShare)
	b.last = r
	was := b.level
	b.decide(now, r)
	if b.level > was && r.memory > b.memory {
		debug.FreeOSMemory() // what the collector holds on to
	}
	e := b.tell(now)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.is.CPUPercent, b.is.CPUPressure = r.cpu, r.cpuPressure
	b.is.Shedding = slices.Clone(shedding[:b.level])
	return e
}

// decide is the level after a reading.
func (b *budget) decide(now time.Time, r reading) {
	cpu, memory := b.cpu, float64(b.memory)*memorySlack
	if r.cpuPressure >= pressed {
		cpu *= pressedShare
	}
	if r.memoryPressure >= pressed {
		memory *= pressedShare
	}
	used := max(r.cpu/cpu, float64(r.memory)/memory) // of the limit that is nearest
	switch next := min(b.level+1, shedActivity); {
	case used > next.from():
		b.below = time.Time{}
		if b.over++; b.over < risesAfter || b.level == next {
			return
		}
		b.over = 0
		b.level++
		if !b.fell.IsZero() && now.Sub(b.fell) < b.hold {
			b.hold = min(2*b.hold, holdLast)
		}
	case used < fallsBelow*b.level.from() && b.level > shedNothing:
		b.over = 0
		if b.below.IsZero() {
			b.below = now
		}
		if now.Sub(b.below) < b.hold {
			return
		}
		b.level--
		b.fell, b.below = now, now
	default:
		b.over, b.below = 0, time.Time{}
		if b.level == shedNothing && now.Sub(b.fell) > holdLast {
			b.hold = holdFirst
		}
	}
}

// tell is the event of what was shed since the last one, once it is over or time
// to.
func (b *budget) tell(now time.Time) *event.Event {
	var total uint64
	var parts []string
	for at, n := range b.untold {
		if n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, [...]string{"", "reads", "writes and ends of processes", "records of activity"}[at]))
		}
	}
	if total == 0 || b.level > shedNothing && now.Sub(b.told) < tellShedEvery {
		return nil
	}
	b.told, b.untold = now, [4]uint64{}
	b.mu.Lock()
	b.is.Shed += total
	b.mu.Unlock()
	e := event.New(event.EventsLost, now)
	e.Sensor = sensorBudget
	e.Lost = &event.Lost{Count: event.Some(int64(total))}
	e.Message = fmt.Sprintf("to stay within the limits (CPU %.0f %% of a core, memory %d MB) were shed: %s", b.cpu, b.memory>>20, strings.Join(parts, ", "))
	return e
}

// close ends shedding, and tells what was shed.
func (b *budget) close(now time.Time) *event.Event {
	b.level = shedNothing
	return b.tell(now)
}

// sensorBudget is the name under which what is shed is told.
const sensorBudget = "budget"

// status is for Status, safe at any time.
func (b *budget) status() endpoint.Budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.is
}

// meter measures this process and the PC.
type meter struct {
	at      time.Time
	cpu     time.Duration
	samples []metrics.Sample
}

func newMeter() *meter {
	m := &meter{samples: []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}}
	m.at, m.cpu = time.Now(), ownCPU()
	return m
}

// read measures since the last reading, and the PC's pressure if asked to.
func (m *meter) read(pressure bool) reading {
	now, cpu := time.Now(), ownCPU()
	var r reading
	if d := now.Sub(m.at); d > 0 {
		r.cpu = 100 * float64(cpu-m.cpu) / float64(d)
	}
	m.at, m.cpu = now, cpu
	metrics.Read(m.samples)
	r.memory = int64(m.samples[0].Value.Uint64() - m.samples[1].Value.Uint64())
	if pressure {
		r.cpuPressure, r.memoryPressure = systemPressure()
	}
	return r
}
