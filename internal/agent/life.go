package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"sekisho/internal/endpoint"
	"sekisho/internal/event"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

// A sensor that says that it works may see nothing all the same: its program was
// taken off the kernel, its marks are gone, a queue stands still. So every few
// minutes the agent makes something happen: it starts a process of its own, the
// canary, which writes a file into a folder of the agent's, and both must come by
// way of their sensors to the rules. There they are taken out: they are in no
// journal, alert or spool, only in status.
//
// Of what the agent cannot make happen without touching the PC (a device plugged, a
// disk mounted, somebody logging on) the sensors prove that they would see it, by a
// message of the kernel's or by asking the system anew; see prover. The proof comes the
// same way to the same place.

// Times of canaries. Judgement.
const (
	// firstCanary is how long after the sensors came up the first one starts.
	firstCanary = 10 * time.Second
	// canaryWithin is how long one may take to the rules: longer than a flood that
	// fills every queue, see eventQueue and the sensors' own.
	canaryWithin = 30 * time.Second
	// canaryAgain is the pause after one that was not seen, which may have been
	// bad luck.
	canaryAgain = 15 * time.Second
	// canaryMisses in a row mean that the sensor is blind.
	canaryMisses = 2
	// canariesKept is how many are known afterwards, so that what they leave behind
	// (the end of the process, the deletion of the file) is taken out as well.
	canariesKept = 8
)

// canaryFolder is the folder of the canaries' files, in the state directory.
const canaryFolder = "canary"

// PlayCanary is what [CanaryCommand] does with its arguments: with a second one
// it writes that file, which must not be there yet. It ends when in does, or
// after a minute, so that sensors that poll can see it.
func PlayCanary(args []string, in io.Reader) error {
	if len(args) > 1 {
		f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(args[0] + "\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.Copy(io.Discard, in)
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
	}
	return nil
}

// prover is a Source that can prove that it sees.
type prover interface {
	// Prove has the source tell [event.Proof] with a nonce, once it has proven that it
	// sees. It does not wait for that.
	Prove(nonce string)
}

// life starts canaries and judges the sensors by them.
type life struct {
	dir     string // of the files; "": none can be written
	log     *zap.Logger
	sensors []*supervised
	tell    func(context.Context, *event.Event)
	every   func() time.Duration                           // from the settings in force
	start   func(nonce, file string) (end func(), _ error) // the process
	within  time.Duration                                  // canaryWithin, less in tests
	again   func(*supervised)                              // starts a sensor again

	mu     sync.Mutex // guards all below
	recent []*beat    // the last one is under way, or the last that was
	vitals map[string]*vital
	rules  vital // of the rule that canaries match
}

// beat is one canary, and what the sensors are asked that have none.
type beat struct {
	nonce, file string
	entity      string               // of its process, once seen
	process     bool                 // a process is due, with a file or without
	provers     []prover             // asked for a proof
	began       time.Time            // when the process was started
	due         map[string]bool      // sensors that owe it
	seen        map[string]time.Time // when it came to the rules
	judged      bool                 // the rule that is there for it matched
	done        chan struct{}        // closed when nobody owes it any more
	over        bool                 // its time is over, and what it says was taken down
}

// vital is what canaries say of one sensor.
type vital struct {
	last   time.Time // when one was last seen
	delay  time.Duration
	missed int       // in a row
	blind  time.Time // since when it is told as blind; zero: it is not
	cannot string    // why none could be started
}

// answers notes that a sensor owes the canary no more.
func (b *beat) answers(sensor string) {
	if b.due[sensor] {
		if delete(b.due, sensor); len(b.due) == 0 {
			close(b.done)
		}
	}
}

// saw notes a canary that was seen, and reports whether the sensor was blind.
func (v *vital) saw(at time.Time, delay time.Duration) (recovered bool) {
	recovered = !v.blind.IsZero()
	*v = vital{last: at, delay: delay}
	return recovered
}

// miss notes one that was not, and reports whether the sensor is to be told as
// blind now.
func (v *vital) miss(at time.Time) (blind bool) {
	v.missed++
	v.cannot = ""
	if v.missed < canaryMisses || !v.blind.IsZero() {
		return false
	}
	v.blind = at
	return true
}

// The sensors that have canaries.
const (
	processSensor = "process"
	fileSensor    = "file"
)

// newLife makes the folder of canaries' files anew.
func newLife(stateDir string, sensors []*supervised, log *zap.Logger) *life {
	l := &life{log: log, sensors: sensors, vitals: map[string]*vital{}, start: startCanary, within: canaryWithin, again: (*supervised).again}
	dir, err := filepath.Abs(filepath.Join(stateDir, canaryFolder))
	if err == nil {
		if err = os.RemoveAll(dir); err == nil {
			err = os.Mkdir(dir, 0o700)
		}
	}
	// The kernel tells of files by their real place.
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		log.Warn("the file sensor cannot be proven to see", zap.Error(err))
		return l
	}
	l.dir = dir
	return l
}

// startCanary starts this program as a canary.
func startCanary(nonce, file string) (end func(), _ error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{CanaryCommand, nonce}
	if file != "" {
		args = append(args, file)
	}
	c := exec.Command(self, args...)
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() {
		in.Close()
		c.Wait()
	}, nil
}

// run starts canaries until ctx is done.
func (l *life) run(ctx context.Context) {
	wait := firstCanary
	if l.every() < wait {
		wait = l.every()
	}
	for {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		// Jittered: a thousand PCs that were switched on at nine need not do it at
		// once, and nobody can wait for the moment after.
		wait = time.Duration(float64(l.every()) * (0.8 + 0.4*rand.Float64()))
		if !l.once(ctx) {
			wait = min(wait, canaryAgain)
		}
	}
}

// once sends one canary and reports whether all who should have seen it did.
func (l *life) once(ctx context.Context) bool {
	b := l.announce()
	if b == nil {
		return true
	}
	end := func() {}
	if b.process {
		stop, err := l.start(b.nonce, b.file)
		if err == nil {
			end = stop
		} else {
			l.log.Warn("no canary can be started", zap.Error(err))
			l.cannot(b, err)
		}
	}
	for _, p := range b.provers {
		p.Prove(b.nonce)
	}
	select {
	case <-b.done:
	case <-time.After(l.within):
	case <-ctx.Done():
	}
	end()
	if b.file != "" {
		os.Remove(b.file)
	}
	if ctx.Err() != nil {
		return true
	}
	return l.verdict(ctx, b)
}

// cannot notes why there is no canary.
func (l *life) cannot(b *beat, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range []string{processSensor, fileSensor} {
		if b.due[name] {
			l.vital(name).cannot = why.Error()
			b.answers(name)
		}
	}
}

// announce makes a canary known before it starts; nil where no sensor has to see
// one.
func (l *life) announce() *beat {
	b := &beat{nonce: uuid.NewString(), began: time.Now(), due: map[string]bool{}, seen: map[string]time.Time{}, done: make(chan struct{})}
	for _, s := range l.sensors {
		switch st := s.status(); {
		case st.State == endpoint.SensorOff || st.State == endpoint.SensorUnavailable || st.State == endpoint.SensorDown:
			// Not to see, or told as down already.
		case st.Name == processSensor:
			b.due[processSensor], b.process = true, true
		case st.Name == fileSensor && l.dir != "":
			b.due[fileSensor] = true
			b.file, b.process = filepath.Join(l.dir, b.nonce), true
		default:
			if p, ok := s.src.(prover); ok {
				b.due[st.Name], b.provers = true, append(b.provers, p)
			}
		}
	}
	if len(b.due) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.recent = append(l.recent, b); len(l.recent) > canariesKept {
		l.recent = l.recent[1:]
	}
	return b
}

// take reports whether an event is of a canary, and notes that it came here.
// matches is what the rules say of it. Only canaries that the agent itself
// started are known: nobody hides a process by giving it their arguments, nor a
// file by putting it beside theirs.
func (l *life) take(e *event.Event, matches func(*event.Event) bool) bool {
	var sensor string
	switch {
	case e.Action == event.SensorProven:
		sensor = e.Sensor
	case e.File != nil:
		if l.dir == "" || !samePath(filepath.Dir(e.File.Path), l.dir) {
			return false
		}
		sensor = fileSensor
	case e.Action == event.ProcessStarted && e.Process != nil && len(e.Process.Args) > 2 && e.Process.Args[1] == CanaryCommand:
		// The arguments alone say nothing: while it runs everybody can read them.
		if pa := e.Process.Parent; pa == nil || pa.PID != event.Some(int64(os.Getpid())) {
			return false
		}
		sensor = processSensor
	case e.Action != event.ProcessEnded || e.Process == nil || e.Process.EntityID == "":
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.recent {
		switch {
		case e.Action == event.SensorProven && e.ID == b.nonce:
		case e.Action == event.SensorProven:
			continue
		case sensor == fileSensor && samePath(e.File.Path, b.file):
		case sensor == processSensor && e.Process.Args[2] == b.nonce:
			b.entity = e.Process.EntityID
		case sensor == "" && e.Process.EntityID == b.entity:
			return true
		default:
			continue
		}
		if sensor == fileSensor && e.Action == event.FileDeleted || !b.seen[sensor].IsZero() {
			return true
		}
		now := time.Now().UTC()
		b.seen[sensor] = now
		if matches(e) && sensor == processSensor {
			b.judged = true
		}
		switch {
		case b.over: // too late to count
			v := l.vital(sensor)
			v.last, v.delay = now, now.Sub(b.began)
		default:
			b.answers(sensor)
		}
		return true
	}
	return e.Action == event.SensorProven // of one that is forgotten, and nobody's business
}

// samePath compares as the system does.
func samePath(a, b string) bool {
	return a == b || runtime.GOOS == "windows" && strings.EqualFold(filepath.Clean(a), filepath.Clean(b))
}

// vital is the sensor's; the caller holds the lock.
func (l *life) vital(name string) *vital {
	v := l.vitals[name]
	if v == nil {
		v = &vital{}
		l.vitals[name] = v
	}
	return v
}

// verdict says what a canary that had its time tells of the sensors, and reports
// whether nobody missed it.
func (l *life) verdict(ctx context.Context, b *beat) bool {
	now := time.Now().UTC()
	var blind, recovered []string
	l.mu.Lock()
	b.over = true
	for name, at := range b.seen {
		if l.vital(name).saw(at, at.Sub(b.began)) {
			recovered = append(recovered, name)
		}
	}
	for name := range b.due {
		if l.vital(name).miss(now) {
			blind = append(blind, name)
		}
	}
	all := len(b.due) == 0
	if _, ok := b.seen[processSensor]; ok {
		switch {
		case b.judged && l.rules.saw(now, 0):
			recovered = append(recovered, sensorJudge)
		case !b.judged && l.rules.miss(now):
			blind = append(blind, sensorJudge)
		}
		all = all && b.judged
	}
	l.mu.Unlock()
	for _, name := range recovered {
		l.log.Info("canaries are seen again", zap.String("sensor", name))
		e := event.New(event.SensorRecovered, now)
		e.Sensor, e.Message = name, "canaries are seen again"
		l.tell(ctx, e)
	}
	for _, name := range blind {
		text := fmt.Sprintf(blindText, canaryMisses, l.within)
		if name == sensorJudge {
			text = fmt.Sprintf("the rule for canaries did not match %d of them: events reach the rules and are not judged; restart the agent", canaryMisses)
		}
		l.log.Error("blind", zap.String("sensor", name), zap.String("reason", text))
		e := event.New(event.SensorDegraded, now)
		e.Sensor, e.Health, e.Message = name, event.HealthDown, text
		l.tell(ctx, e)
	}
	// What is blind is begun anew, each time it missed one.
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sensors {
		if v := l.vitals[s.src.Name()]; b.due[s.src.Name()] && !v.blind.IsZero() {
			l.again(s)
		}
	}
	return all
}

// blindText says what it means that a sensor missed its canaries, and what to do.
const blindText = "it says that it works and has not proven it the last %d times, within %v each: it may be blind, and is started again; if this stays, run sekisho-agent doctor and restart the service"

// fill adds what canaries say to what a sensor says of itself.
func (l *life) fill(st *endpoint.Sensor) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.vitals[st.Name]
	if v == nil {
		return
	}
	st.Canary = &endpoint.Canary{Seen: v.last, Delay: v.delay, Missed: v.missed, Problem: v.cannot}
	if !v.blind.IsZero() && st.State != endpoint.SensorDown {
		st.State, st.Since, st.Reason = endpoint.SensorDown, v.blind, fmt.Sprintf(blindText, v.missed, l.within)
	}
}
